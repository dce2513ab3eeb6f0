"""From any scan to an outcome: read, accept or refuse, paint, compare, judge."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from pathology_screen.calibration import Calibration, calibration_beside
from pathology_screen.errors import find_refusal
from pathology_screen.geometry import box_around
from pathology_screen.io import Scan, read_scan
from pathology_screen.predictor import Predictor
from pathology_screen.result import Finding, ScanContext, ScreeningResult
from pathology_screen.screening.gate import acquisition_findings, brain_findings, geometry_findings
from pathology_screen.screening.judge import Judge
from pathology_screen.space import Fit
from pathology_screen.transforms import ExtractBraind

ScanSource = str | Path | Sequence[str | Path] | Scan
"""What `io.read_scan` takes, or a scan that was read."""


class ScanOptions(TypedDict, total=False):
    """How a scan is read, see `io.read_scan`, and which plane of it is taken: z of another plane of
    MNI152 space is mapped and not judged."""

    plane_mm: float | None
    series_uid: str | None
    axial_slice: bool
    axes: str | None
    pixel_mm: float | None


class Screener:
    """Screen scans with one method and its calibration: `Screener.from_bundle("ra")(path)`. `rate`
    is the share of false positives among healthy people that the image threshold allows.

    Threads may share a screener: nothing in it changes after it is made.

    Raises:
        ConfigError: if the calibration has too few people for the rate.
    """

    def __init__(self, predictor: Predictor, calibration: Calibration, rate: float = 0.05) -> None:
        calibration.image_threshold(rate)  # or the people are too few, told before the first scan
        self.predictor, self.judge = predictor, Judge(predictor, calibration, rate)

    @classmethod
    def from_bundle(
        cls,
        bundle: str | Path = "ra",
        *,
        weights: str | Path | None = None,
        calibration: str | Path | None = None,
        profile: str = "compact",
        rate: float = 0.05,
        device: str | torch.device = "cpu",
    ) -> "Screener":
        """Load a bundle, see `Predictor.load`: network by the registry, weights by hash; nothing is
        evaluated. `calibration` is a file in place of the `calibration.json` beside the weights.

        Raises:
            ArtifactError: if weights or calibration are missing, damaged, or do not match.
            ConfigError: if there is no such bundle or profile, or the calibration has too few
                people for the rate.
        """
        predictor = Predictor.load(bundle, weights, profile, device)
        return cls(predictor, calibration_beside(predictor, calibration), rate)

    def __call__(self, scan: ScanSource, **options: Unpack[ScanOptions]) -> ScreeningResult:
        """Screen one scan. The result is "not_assessable" for a scan that the reader or the
        acceptance gate refuses, or a plane that the calibration does not cover (code
        "not_calibrated").

        Raises:
            ArtifactError: if the weights turn out to be broken.
        """
        context = ScanContext()
        try:
            image = prepare(self.predictor, scan, context, **options)
            with context.timed("screening"):
                return self.judge(image, self.predictor.predict(image[None]), context)
        except Exception as error:  # MONAI wraps what a transform raises in a RuntimeError
            refusal = find_refusal(error)
            if refusal is None:
                raise
            return self.judge.refuse(refusal, context)


def prepare(
    predictor: Predictor, scan: ScanSource, context: ScanContext, **options: Unpack[ScanOptions]
) -> MetaTensor:
    """Take the slice of a scan, (1, H, W) in [0, 1], by the preprocessing of a method, past the
    reader and the acceptance gate; `context` takes facts and findings. A refusal is an InputError,
    as such or as the cause of a RuntimeError of MONAI's."""
    domain = predictor.slice_options["domain"]
    return take_slice(predictor.preprocessing, domain, scan, context, **options)


def take_slice(
    preprocessing: Compose,
    domain: str,
    scan: ScanSource,
    context: ScanContext,
    plane_mm: float | None = None,
    **options: Any,
) -> MetaTensor:
    """Do what `prepare` does, with a preprocessing that accepts one domain."""
    with context.timed("reading"):
        if not isinstance(scan, Scan):
            scan = read_scan(scan, **options)
    item: Mapping[str, Any] = {"image": scan} | ({} if plane_mm is None else {"z_mm": plane_mm})
    with context.timed("preparation"):
        for number, step in enumerate(preprocessing.transforms):
            item = cast(Callable, step)(item)
            volume = min(item["image"].shape[1:]) > 1
            if number == 0:
                _accept_loaded(item["image"], volume, context)
            elif isinstance(step, ExtractBraind) and volume:
                _accept_brain(item, domain, context)
        image = item["image"]
        context.fit = Fit(**image.meta["fit"]) if "fit" in image.meta else None
    return image


def _accept_loaded(image: MetaTensor, volume: bool, context: ScanContext) -> None:
    context.source = json.loads(image.meta["source"])
    context.accept(acquisition_findings(context.source))
    if volume:
        shape, affine = tuple(image.meta["volume_shape"]), np.asarray(image.meta["volume_affine"])
        context.accept(geometry_findings(context.source, shape, affine))
    else:
        limit = "a volume, which is brought to the standard plane"
        context.accept([Finding("not_registered", "a single slice", limit, refused=False)])


def _accept_brain(item: Mapping[str, Any], domain: str, context: ScanContext) -> None:
    image = item["image"]
    found = "brain_extracted" if image.meta["brain_extracted"] else "whole_head"
    if found != domain:
        hints = {
            "whole_head": "Give the whole head, as it was acquired, or weights of the profile "
            "brain_extracted",
            "brain_extracted": "Give the brain without its skull",
        }
        context.accept([Finding("other_domain", found, domain, hint=hints[domain])])
    mask = np.asarray(item["brain"][0]) > 0
    near = box_around(mask)
    brain = np.asarray(image[0])[near] * mask[near]
    context.accept(brain_findings(brain, np.asarray(image.affine)))
