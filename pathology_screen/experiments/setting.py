"""What an experiment is run on: a datalist, methods, scorings, a profile and a seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pathology_screen.cohorts import resolve_dataset
from pathology_screen.errors import ConfigError
from pathology_screen.experiments.methods import (
    CONTROLS,
    SCORINGS,
    Chosen,
    ComparedMethod,
    Profile,
    load_methods,
    read_profile,
)
from pathology_screen.experiments.slices import AnnotatedSlices, load_slices
from pathology_screen.files import sha256
from pathology_screen.metrics.localization import Protocol, check_protocol
from pathology_screen.versions import versions


@dataclass(frozen=True)
class ExperimentSetting:
    """The methods and data of an experiment, prepared when they are first asked for.

    Attributes:
        methods: as in `Chosen.parse`; runs of one label are seeds of one method.
        dataset_dir, datalist: see `cohorts.resolve_dataset`; neither takes the embedded cohort.
        section: of the datalist, whose slices are looked at.
        scoring: names of the scorings; a method that knows none is scored its own way.
        profile: "compact" or "paper".
        backbone: perceptual backbone in place of the profile's.
        seed: of all draws.
        percentiles_of: of synthetic ellipses, "image" or "tissue" (see `synthetic.add_ellipses`).
        protocol: of the localisation of boxes (see `metrics.box_scores`).
        configured: profile and methods in place of those of the bundles.
        prepared: section -> its slices.
    """

    methods: Sequence[str]
    dataset_dir: str | None = None
    datalist: str | None = None
    section: str = "test"
    scoring: Sequence[str] = ("residual", "eq5")
    profile: str = "compact"
    backbone: str | None = None
    seed: int = 0
    percentiles_of: Literal["image", "tissue"] = "image"
    protocol: Protocol = "pixel_count"
    configured: tuple[Profile, list[ComparedMethod]] | None = None
    prepared: dict[str, AnnotatedSlices] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if unknown := set(self.scoring) - set(SCORINGS):
            raise ConfigError(
                f"there is no scoring {', '.join(sorted(unknown))}; there are {', '.join(SCORINGS)}"
            )
        check_protocol(self.protocol)
        for kind, given in (("method", self.methods), ("scoring", self.scoring)):
            if len(set(given)) < len(given):
                raise ConfigError(f"a {kind} is named twice")
        named: dict[str, str] = {}
        for choice in self.choices:
            if named.setdefault(choice.label, choice.method.name) != choice.method.name:
                raise ConfigError(
                    f"{choice.label!r} names two methods: runs that share a label are seeds of one"
                )

    @cached_property
    def shared(self) -> Profile:
        """What all methods share."""
        return self.configured[0] if self.configured else read_profile(self.profile, self.backbone)

    @cached_property
    def choices(self) -> list[Chosen]:
        """The methods as they were asked for."""
        return [Chosen.parse(text) for text in self.methods]

    @cached_property
    def compared(self) -> list[ComparedMethod]:
        """The methods, ready."""
        if self.configured:
            return self.configured[1]
        taught = any(choice.method.name in CONTROLS for choice in self.choices)
        training = self.slices_of("training") if taught else None
        return load_methods(self.choices, self.shared, training, self.scoring)

    @property
    def slices(self) -> AnnotatedSlices:
        """The slices that are looked at."""
        return self.slices_of(self.section)

    def slices_of(self, section: str) -> AnnotatedSlices:
        """The slices of a section of the datalist."""
        if section not in self.prepared:
            items = resolve_dataset(self.dataset_dir, self.datalist, section=section)
            self.prepared[section] = load_slices(items, self.shared.preprocessing)
        return self.prepared[section]

    def provenance(self) -> dict[str, Any]:
        """What the numbers depend on, ready for JSON; paths are left out."""
        identity = "embedded cohort"
        if self.datalist or self.dataset_dir:
            path = Path(self.datalist or Path(str(self.dataset_dir)) / "datalist.json")
            identity = f"{path.name}, sha256 {sha256(path)}"
        methods = [
            {
                "label": method.label,
                "method": method.predictor.method,
                "weights_sha256": method.weights_sha256,
                "scorings": {name: one.identity for name, one in method.scorings.items()},
            }
            for method in self.compared
        ]
        return {
            "datalist": identity,
            "section": self.section,
            "versions": versions(),
            "profile": self.shared.name,
            "slice": dict(self.shared.slice_options),
            "seed": self.seed,
            "percentiles_of": self.percentiles_of,
            "protocol": self.protocol,
            "methods": methods,
        }
