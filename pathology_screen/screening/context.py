"""From a scan to its slice, past the reader and the acceptance gate."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose

from pathology_screen.bundles import PROFILES, read_settings
from pathology_screen.errors import as_refusal
from pathology_screen.geometry import box_around
from pathology_screen.io import Scan, read_scan
from pathology_screen.predictor import Predictor, build_preprocessing
from pathology_screen.result import Finding, ScanContext
from pathology_screen.screening.gate import acquisition_findings, brain_findings, geometry_findings
from pathology_screen.space import Fit
from pathology_screen.transforms import READ_BY_READER, ExtractBraind

ScanSource = str | Path | Sequence[str | Path] | Scan
"""What `io.read_scan` takes, or a scan that was read."""


class ScanOptions(TypedDict, total=False):
    """How a scan is read, and which plane of it is taken.

    Attributes:
        plane_mm: z of another plane of MNI152 space, which is mapped and not judged.
        series_uid, axial_slice, axes, pixel_mm: see `io.read_scan`.
    """

    plane_mm: float | None
    series_uid: str | None
    axial_slice: bool
    axes: str | None
    pixel_mm: float | None


def scan_item(scan: ScanSource, **options: Unpack[ScanOptions]) -> dict[str, Any]:
    """The item of a scan, as `prepare` takes it."""
    plane = options.get("plane_mm")
    read = {name: value for name, value in options.items() if name != "plane_mm"}
    return {"image": scan, **read, **({} if plane is None else {"z_mm": plane})}


def prepare(predictor: Predictor, item: Mapping[str, Any], context: ScanContext) -> MetaTensor:
    """Read a scan and take its slice, (1, H, W) in [0, 1], past the acceptance gate.

    Args:
        predictor: the method whose preprocessing takes the slice.
        item: `image`, a path or a `Scan`, and what `LoadScand` and `StandardPlaned` read beside it.
        context: takes facts and findings.

    Raises:
        InputError: if the scan is refused.
    """
    return take_slice(predictor.preprocessing, predictor.slice_options["domain"], item, context)


def take_slice(
    preprocessing: Compose, domain: str, item: Mapping[str, Any], context: ScanContext
) -> MetaTensor:
    """Do what `prepare` does, with a preprocessing that accepts one domain."""
    with context.timed("reading"):
        if not isinstance(item["image"], Scan):
            options = {name: item[name] for name in READ_BY_READER if name in item}
            item = {**item, "image": read_scan(item["image"], **options)}
    with context.timed("preparation"):
        for number, step in enumerate(preprocessing.transforms):
            item = cast(Callable, step)(item)
            if number == 0:
                _accept_loaded(item["image"], context)
            elif isinstance(step, ExtractBraind) and is_volume(item["image"]):
                _accept_brain(item, domain, context)
        image = item["image"]
        context.fit = Fit(**image.meta["fit"]) if "fit" in image.meta else None
    return image


def _accept_loaded(image: MetaTensor, context: ScanContext) -> None:
    context.source = json.loads(image.meta["source"])
    context.accept(acquisition_findings(context.source))
    if is_volume(image):
        shape, affine = tuple(image.meta["volume_shape"]), np.asarray(image.meta["volume_affine"])
        context.accept(geometry_findings(context.source, shape, affine))
    else:
        limit = "a volume, which is brought to the standard plane"
        context.accept([Finding("not_registered", "a single slice", limit, refused=False)])


def _accept_brain(item: Mapping[str, Any], domain: str, context: ScanContext) -> None:
    image = item["image"]
    found = "brain_extracted" if image.meta["brain_extracted"] else "whole_head"
    if found != domain:
        hint = "Give the whole head, as it was acquired"
        context.accept([Finding("other_domain", found, domain, hint=hint)])
    mask = np.asarray(item["brain"][0]) > 0
    near = box_around(mask)
    brain = np.asarray(image[0])[near] * mask[near]
    context.accept(brain_findings(brain, np.asarray(image.affine)))


def is_volume(image: MetaTensor) -> bool:
    """Whether a loaded scan (1, I, J, K) is more than one slice."""
    return min(image.shape[1:]) > 1


class Inspector:
    """Take scans past the reader, the acceptance gate, brain extraction and registration, as
    screening would; only the comparison with the reconstruction is left out.

    Args:
        preprocessing: preprocessing of a bundle.
        domain: the domain that it accepts.
    """

    def __init__(self, preprocessing: Compose, domain: str) -> None:
        self.preprocessing, self.domain = preprocessing, domain

    @classmethod
    def from_bundle(cls, bundle: str | Path = "ra", profile: str = "compact") -> "Inspector":
        """Read a bundle's preprocessing; it needs no weights.

        Raises:
            ConfigError: if there is no such bundle.
        """
        settings = read_settings(bundle, PROFILES[profile])
        return cls(build_preprocessing(settings["preprocessing"]), settings["slice"]["domain"])

    def __call__(self, scan: ScanSource, **options: Unpack[ScanOptions]) -> ScanContext:
        """Inspect one scan."""
        context = ScanContext()
        try:
            take_slice(self.preprocessing, self.domain, scan_item(scan, **options), context)
        except Exception as error:
            context.refusal = as_refusal(error)
        return context
