"""What an experiment compares: methods with their weights, and the ways of scoring them, on the
slices of a datalist."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from monai.transforms import Compose
from torch import Tensor, nn

from pathology_screen.anomaly import AnomalyMap, DistillationMap, Scoring, perceptual_distance
from pathology_screen.bundles import bundle_root, read_settings
from pathology_screen.calibration import Calibration
from pathology_screen.cohorts import resolve_dataset
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments.report import Measurements, Report, published
from pathology_screen.experiments.slices import AnnotatedSlices, load_slices
from pathology_screen.files import sha256
from pathology_screen.metrics.localization import PROTOCOLS, Protocol
from pathology_screen.networks.controls import PrincipalComponents, TrainingMean, ZeroReconstruction
from pathology_screen.predictor import Prediction, Predictor, build_preprocessing
from pathology_screen.registry import METHODS, Method
from pathology_screen.versions import versions

SCORINGS = {
    "residual": (False, False),
    "equalised": (False, True),
    "perceptual": (True, False),
    "eq5": (True, True),
}
"""Name -> which terms of Eq. 5 it takes, perceptual and equalised: those of Table 3 of the paper.
"""

CONTROLS: dict[str, Callable[[Tensor], nn.Module]] = {
    "template": TrainingMean,
    "principal_components": PrincipalComponents,
}
"""Control that learns from the training slices -> its network."""


class Chosen(NamedTuple):
    """A method as it was asked for: `METHOD`, `METHOD=RUN` or `METHOD:LABEL=RUN`."""

    method: Method
    label: str
    run: Path | None

    @classmethod
    def parse(cls, text: str) -> "Chosen":
        """Read one; ConfigError if the method is unknown, or a control, which has no runs."""
        name, _, run = text.partition("=")
        name, _, label = name.partition(":")
        if name not in METHODS:
            raise ConfigError(f"there is no method {name!r}; the methods are {', '.join(METHODS)}")
        if run and METHODS[name].is_control:
            raise ConfigError(
                f"the control {name!r} trains no network, so it has no run: leave out ={run}"
            )
        return cls(METHODS[name], label or name, Path(run) if run else None)

    @property
    def weights(self) -> Path:
        """File of the weights: of the run, or those that the bundle ships."""
        return (self.run or bundle_root(self.method.name) / "models") / "model.pt"


@dataclass(frozen=True)
class ComparedMethod:
    """A method ready to look at slices: its name in tables (several runs of one method that share
    it are its seeds), its runtime, and the scorings that are compared by their names."""

    label: str
    predictor: Predictor
    scorings: Mapping[str, Scoring]

    def predict(self, slices: AnnotatedSlices) -> dict[str, Prediction]:
        """What the method makes of slices under each of its scorings."""
        return {
            name: replace(self.predictor, scoring=scoring).predict(slices.images)
            for name, scoring in self.scorings.items()
        }

    def reconstruct(self, slices: AnnotatedSlices) -> Tensor:
        """The output for slices, (N, 1, H, W), which is the same under all scorings."""
        name, scoring = next(iter(self.scorings.items()))
        return replace(self, scorings={name: scoring}).predict(slices)[name].output


class Profile(NamedTuple):
    """What all methods of an experiment share: how slices are prepared, the perceptual backbone,
    the section of the datalist that thresholds are fitted on, and the profile's name."""

    preprocessing: Compose
    slice_options: Mapping[str, Any]
    backbone: str
    calibration_section: str = "calibration"
    name: str = "configured"


def _check_calibration(
    label: str, predictor: Predictor, profile: str, scorings: Mapping[str, Scoring]
) -> None:
    """Refuse weights whose calibration tells of another preprocessing or teacher."""
    path = predictor.weights.with_name("calibration.json")
    if not path.is_file():
        return
    identity = Calibration.load(path).identity
    here = {"weights_sha256": sha256(predictor.weights), "slice": dict(predictor.slice_options)}
    if "discrepancy" in scorings:
        chosen = scorings["discrepancy"].identity
        here |= {name: chosen[name] for name in ("teacher", "mse_weight")}
    made = {**identity, **identity.get("scoring", {})}
    if differing := [name for name, value in here.items() if made.get(name) != value]:
        raise ArtifactError(
            f"{label}: {', '.join(differing)} differ between the run and the profile {profile!r}: "
            "choose the profile that it was trained with"
        )


@dataclass(frozen=True)
class ExperimentSetting:
    """The methods and data of an experiment, prepared when they are first asked for.

    Attributes:
        methods: as in `Chosen`; runs of one label are seeds of one method.
        dataset_dir, datalist: see `cohorts.resolve_dataset`; neither takes the embedded cohort.
        section: of the datalist, whose slices are looked at.
        scoring: names of the scorings; a method that knows none is scored its own way.
        profile: of `bundles.PROFILES`.
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
        if self.protocol not in PROTOCOLS:
            raise ConfigError(
                f"the protocol is one of {', '.join(PROTOCOLS)}, not {self.protocol!r}"
            )
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
        """What all methods share: settings of RA, which are those of all bundles; ConfigError if
        there is no such profile."""
        if self.configured:
            return self.configured[0]
        settings = read_settings("ra", self.profile)
        return Profile(
            build_preprocessing(settings["preprocessing"]),
            settings["slice"],
            self.backbone or settings["scoring"]["perceptual"],
            settings["calibration_section"],
            self.profile,
        )

    @cached_property
    def choices(self) -> list[Chosen]:
        """The methods as they were asked for."""
        return [Chosen.parse(text) for text in self.methods]

    @cached_property
    def compared(self) -> list[ComparedMethod]:
        """The methods, ready, all with one and the same perceptual backbone, which is only built
        where a scoring takes it; MKD and `intensity` are scored their own way, whatever is wanted.
        ArtifactError if weights are missing, do not fit, or are of another profile."""
        if self.configured:
            return self.configured[1]
        perceptual = any(SCORINGS[name][0] for name in self.scoring)
        backbone = perceptual_distance(self.shared.backbone) if perceptual else "none"
        scorings: dict[str, Scoring] = {}
        for name in self.scoring:
            takes_perceptual, equalize = SCORINGS[name]
            scorings[name] = AnomalyMap(backbone if takes_perceptual else "none", equalize)
        return [self._ready(choice, scorings) for choice in self.choices]

    def _ready(self, choice: Chosen, scorings: Mapping[str, Scoring]) -> ComparedMethod:
        name = choice.method.name
        if choice.method.is_control:
            network: nn.Module = ZeroReconstruction()
            if name == "intensity":
                scorings = {"equalised": AnomalyMap("none", equalize=True)}
            else:
                network = CONTROLS[name](self.slices_of("training").images)
            scoring, shared = next(iter(scorings.values())), self.shared
            steps = shared.preprocessing, shared.slice_options
            predictor = Predictor(name, network.eval(), scoring, *steps, weights=Path())
            return ComparedMethod(choice.label, predictor, scorings)
        if not choice.weights.is_file():
            ended = "is that the output_dir of a run that ended?"
            advice = ended if choice.run else "train it and name the run"
            raise ArtifactError(f"there are no weights of {choice.label}: {advice} ({name}=RUN)")
        predictor = Predictor.load(name, choice.weights, self.profile)
        if isinstance(predictor.scoring, DistillationMap):
            scorings = {"discrepancy": DistillationMap(predictor.scoring.network)}
        _check_calibration(choice.label, predictor, self.profile, scorings)
        return ComparedMethod(choice.label, predictor, scorings)

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

    def report(
        self,
        name: str,
        title: str,
        measurements: Measurements,
        notes: Sequence[str],
        figures: Mapping[str, Figure],
        tables: Mapping[str, pd.DataFrame] | None = None,
    ) -> Report:
        """The report of an experiment, with the paper's own table where it compares."""
        paper = published(name, self.shared.name, self.protocol, self.slices)
        tables = {**(tables or {}), **paper}
        return Report(name, title, measurements, notes, self.provenance(), figures, tables)

    def provenance(self) -> dict[str, Any]:
        """What the numbers depend on, ready for JSON; paths are left out."""
        identity = "embedded cohort"
        if self.datalist or self.dataset_dir:
            path = Path(self.datalist or Path(str(self.dataset_dir)) / "datalist.json")
            identity = f"{path.name}, sha256 {sha256(path)}"
        methods = []
        for method in self.compared:
            weights = method.predictor.weights
            told = {
                "label": method.label,
                "method": method.predictor.method,
                "weights_sha256": sha256(weights) if weights.is_file() else None,
                "scorings": {name: one.identity for name, one in method.scorings.items()},
            }
            methods.append(told)
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
