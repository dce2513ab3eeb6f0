"""From scores and maps to an outcome: the one place that decides what is suspicious."""

from typing import Any

import numpy as np
from monai.data import MetaTensor
from torch import Tensor

from pathology_screen.calibration import Calibration, fewest_people
from pathology_screen.errors import InputError
from pathology_screen.predictor import Prediction, Predictor
from pathology_screen.result import ScanContext, ScreenedSlice, ScreeningResult
from pathology_screen.screening.gate import distribution_findings
from pathology_screen.screening.regions import find_regions
from pathology_screen.transforms import shown_pixels, slice_affines, slice_to_scan
from pathology_screen.versions import versions


class Judge:
    """Compare a slice, and what the method made of it, with healthy people.

    Where the calibration has too few people for the rate there is no image threshold: maps and
    regions are given, and no scan is assessable.

    Args:
        predictor: the method.
        calibration, rate: see `Screener`.

    Raises:
        ConfigError: if the rate does not lie between 0 and 1.
    """

    def __init__(self, predictor: Predictor, calibration: Calibration, rate: float = 0.05) -> None:
        self.predictor, self.calibration, self.rate = predictor, calibration, rate
        people, scores = calibration.n_subjects, calibration.subject_scores.tolist()
        few = 0 < rate < 1 and people < fewest_people(rate)
        self.image_threshold = None if few else calibration.image_threshold(rate)
        self.provenance: dict[str, Any] = {
            "method": predictor.method,
            "calibration_id": calibration.calibration_id,
            "identity": calibration.identity,
            "healthy": {"subjects": people, "scores": scores},
            "versions": versions(),
        }

    def __call__(
        self, image: MetaTensor, prediction: Prediction, context: ScanContext
    ) -> ScreeningResult:
        """Judge one scan by its slice (1, H, W), with the record of how it was taken, by what the
        method made of it, and by what is known of the scan."""
        output, anomaly_map = prediction.output[0], prediction.maps[0]
        score, reconstructs = float(prediction.scores[0]), self.predictor.reconstructs
        painted = _plain(output) if reconstructs else None
        if painted is not None:
            healthy = self.calibration.agreements
            try:
                context.accept(distribution_findings(_plain(image), painted, healthy))
            except InputError as refusal:
                return self.refuse(refusal, context)
        affine, mni_affine = slice_affines(image)
        threshold = self.calibration.pixel_threshold
        seen = _plain(anomaly_map) * shown_pixels(image)  # padding is no place of the scan
        regions, labels = find_regions(seen, affine, threshold, mni_affine)
        plane = image.meta.get("z_mm")
        screened = ScreenedSlice(
            *(score, _plain(image), painted, _plain(anomaly_map), labels),
            *(affine, plane, mni_affine, context.fit),
        )
        steps, labelled = self.predictor.preprocessing, labels[None].astype(np.float32)
        map_volume = slice_to_scan(steps, image, anomaly_map)
        labels_volume = slice_to_scan(steps, image, labelled, nearest=True)[0].numpy()
        painted_volume = slice_to_scan(steps, image, output)[0].numpy() if reconstructs else None
        shown: dict[str, Any] = {
            "findings": tuple(context.findings),
            "pixel_threshold": threshold,
            "slice": screened,
            "regions": regions,
            "affine": np.asarray(map_volume.affine),
            "map_volume": map_volume[0].numpy(),
            "reconstruction_volume": painted_volume,
            "regions_volume": labels_volume.astype(np.uint16),
            "source": context.source,
            "provenance": self.provenance,
            "seconds": context.seconds,
        }
        if lacking := self._lacking(plane):
            uncovered = InputError("not_calibrated", *lacking)
            return ScreeningResult("not_assessable", uncovered.code, str(uncovered), **shown)
        return ScreeningResult(
            "suspicious" if score > self.image_threshold else "normal",  # type: ignore[operator]
            score=score,
            percentile=self.calibration.percentile(score),
            p_value=self.calibration.p_value(score),
            image_threshold=self.image_threshold,
            false_positive_rate=self.rate,
            **shown,
        )

    def refuse(self, refusal: InputError, context: ScanContext | None = None) -> ScreeningResult:
        """The result of a scan that was not scored."""
        context = context or ScanContext()
        return ScreeningResult(
            "not_assessable",
            refusal.code,
            str(refusal),
            tuple(context.findings),
            source=context.source,
            provenance=self.provenance,
            seconds=context.seconds,
        )

    def _lacking(self, plane_mm: float | None) -> tuple[str, str] | None:
        """What the calibration lacks to judge a slice, and a hint; None where it lacks nothing."""
        plane = self.calibration.identity["slice"]["plane_mm"]
        if plane_mm not in (None, plane):
            return f"the plane at z = {plane_mm:g} mm; accepted: {plane:g} mm", ""
        if self.image_threshold is not None:
            return None
        people = f"{self.calibration.n_subjects} healthy people"
        people += f"; accepted: {fewest_people(self.rate)} or more"
        hint = "Calibrate on more, or ask for a higher rate"
        return f"{people} for a false positive rate of {self.rate:g}", hint


def _plain(image: Tensor) -> np.ndarray:
    """(1, H, W) -> (H, W)."""
    return np.asarray(image[0].as_subclass(Tensor).cpu())
