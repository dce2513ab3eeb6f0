"""From scores and maps to an outcome: the one place that decides what is suspicious."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from monai.data import MetaTensor
from torch import Tensor

from pathology_screen.calibration import Calibration
from pathology_screen.errors import InputError
from pathology_screen.predictor import Prediction, Predictor
from pathology_screen.screening.context import ScanContext, refusal_of
from pathology_screen.screening.gate import distribution_findings
from pathology_screen.screening.regions import find_regions
from pathology_screen.screening.result import Finding, ScreenedSlice, ScreeningResult
from pathology_screen.space import Fit
from pathology_screen.transforms import slice_affines, slice_to_scan
from pathology_screen.versions import versions


@dataclass(frozen=True, eq=False)
class Measured:
    """A slice with what a method made of it, and its volumes.

    Attributes:
        slice: without regions.
        image: the same slice with the record of how it was taken.
        map_volume: anomaly map on the voxels of the scan, (I, J, K), zero where the plane does not
            cut it.
        reconstruction_volume: likewise; None from a method that does not reconstruct.
        affine: (4, 4), voxel of the scan -> RAS+ mm.
    """

    slice: ScreenedSlice
    image: MetaTensor
    map_volume: np.ndarray
    reconstruction_volume: np.ndarray | None
    affine: np.ndarray


def measure_slice(predictor: Predictor, image: MetaTensor, prediction: Prediction) -> Measured:
    """Gather what a method made of one slice, (1, H, W), and take it to the voxels of the scan."""
    output, anomaly_map = prediction.output[0], prediction.maps[0]
    affine, mni_affine = slice_affines(image)
    screened = ScreenedSlice(
        score=float(prediction.scores[0]),
        image=_plain(image),
        reconstruction=_plain(output) if predictor.reconstructs else None,
        anomaly_map=_plain(anomaly_map),
        labels=np.zeros(image.shape[1:], np.uint16),
        affine=affine,
        plane_mm=image.meta.get("z_mm"),
        mni_affine=mni_affine,
        fit=Fit(**image.meta["fit"]) if "fit" in image.meta else None,
    )
    volumes = [
        slice_to_scan(predictor.preprocessing, image, part) for part in (anomaly_map, output)
    ]
    painted = volumes[1][0].numpy() if predictor.reconstructs else None
    return Measured(screened, image, volumes[0][0].numpy(), painted, np.asarray(volumes[0].affine))


class Judge:
    """Compare a screened slice with healthy people.

    Where the calibration has too few people for the rate there is no image threshold: maps and
    regions are given, and no scan is assessable.

    Args:
        predictor: the method.
        calibration: of it.
        rate: of false positives among healthy people, that the image threshold is for.

    Raises:
        ConfigError: if the rate does not lie between 0 and 1.
    """

    def __init__(self, predictor: Predictor, calibration: Calibration, rate: float = 0.05) -> None:
        self.predictor, self.calibration, self.rate = predictor, calibration, rate
        smallest = calibration.p_value(math.inf)  # that so many people can give
        self.image_threshold = None if 0 < rate < smallest else calibration.image_threshold(rate)
        self.provenance: dict[str, Any] = {
            "method": predictor.method,
            "calibration_id": calibration.calibration_id,
            "identity": calibration.identity,
            "healthy": {
                "subjects": calibration.n_subjects,
                "scores": calibration.subject_scores.tolist(),
            },
            "versions": versions(),
        }

    def __call__(self, measured: Measured, context: ScanContext) -> ScreeningResult:
        """Give the outcome of one scan; one pixel above the pixel threshold says nothing about
        it."""
        screened, findings = measured.slice, list(context.findings)
        if screened.reconstruction is not None:
            findings += distribution_findings(
                screened.image, screened.reconstruction, self.calibration.agreements
            )
            if refusal := refusal_of(findings):
                return self.refuse(refusal, context, findings)
        threshold = self.calibration.pixel_threshold
        regions, labels = find_regions(
            screened.anomaly_map, screened.affine, threshold, screened.mni_affine
        )
        labels_volume = slice_to_scan(
            self.predictor.preprocessing,
            measured.image,
            labels[None].astype(np.float32),
            nearest=True,
        )
        shown: dict[str, Any] = {
            "findings": tuple(findings),
            "pixel_threshold": threshold,
            "slice": replace(screened, labels=labels),
            "regions": regions,
            "affine": measured.affine,
            "map_volume": measured.map_volume,
            "reconstruction_volume": measured.reconstruction_volume,
            "regions_volume": labels_volume[0].numpy().astype(np.uint16),
            "source": context.source,
            "provenance": self.provenance,
        }
        if lacking := self._lacking(screened):
            refusal = InputError("not_calibrated", *lacking)
            return ScreeningResult("not_assessable", refusal.code, str(refusal), **shown)
        score = screened.score
        return ScreeningResult(
            "suspicious" if score > self.image_threshold else "normal",  # type: ignore[operator]
            score=score,
            percentile=self.calibration.percentile(score),
            p_value=self.calibration.p_value(score),
            image_threshold=self.image_threshold,
            false_positive_rate=self.rate,
            **shown,
        )

    def refuse(
        self,
        refusal: InputError,
        context: ScanContext | None = None,
        findings: Sequence[Finding] | None = None,
    ) -> ScreeningResult:
        """The result of a scan that was not scored."""
        context = context or ScanContext()
        return ScreeningResult(
            "not_assessable",
            refusal.code,
            str(refusal),
            tuple(context.findings if findings is None else findings),
            source=context.source,
            provenance=self.provenance,
        )

    def _lacking(self, screened: ScreenedSlice) -> tuple[str, str] | None:
        """What the calibration lacks to judge a slice, and what can be done about it; None where it
        can."""
        plane = self.calibration.identity["slice"]["plane_mm"]
        if screened.plane_mm not in (None, plane):
            return f"the plane at z = {screened.plane_mm:g} mm; accepted: {plane:g} mm", ""
        if self.image_threshold is not None:
            return None
        fewest = math.ceil(1 / self.rate - 1e-9) - 1
        people = f"{self.calibration.n_subjects} healthy people; accepted: {fewest} or more"
        return (
            f"{people} for a false positive rate of {self.rate:g}",
            "Calibrate on more, or ask for a higher rate",
        )


def _plain(image: Tensor) -> np.ndarray:
    """(1, H, W) -> (H, W)."""
    return np.asarray(image[0].as_subclass(Tensor).cpu())
