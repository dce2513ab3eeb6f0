"""From scores and maps to an outcome: the one place that decides what is suspicious."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pathology_screen.calibration import Calibration
from pathology_screen.errors import InputError
from pathology_screen.screening.gate import distribution_findings
from pathology_screen.screening.regions import find_regions
from pathology_screen.screening.result import Finding, ScreenedSlice, ScreeningResult
from pathology_screen.versions import versions


@dataclass(frozen=True)
class Volumes:
    """What was computed of the slices, on the voxels of the scan, zero elsewhere.

    Attributes:
        anomaly_map: (I, J, K).
        reconstruction: likewise; None from a method that does not reconstruct.
        affine: (4, 4), voxel -> RAS+ mm.
    """

    anomaly_map: np.ndarray
    reconstruction: np.ndarray | None
    affine: np.ndarray


class Judge:
    """Compare screened slices with healthy people.

    Where the calibration has too few people for the rate there is no image threshold: maps and regions are given, and
    no scan is assessable.

    Args:
        method: name of the method.
        calibration: of its weights, preprocessing and scoring.
        rate: of false positives among healthy people, that the image threshold is for.

    Raises:
        ConfigError: if the rate does not lie between 0 and 1.
    """

    def __init__(self, method: str, calibration: Calibration, rate: float = 0.05) -> None:
        self.calibration, self.rate = calibration, rate
        smallest = calibration.p_value(math.inf)  # that so many people can give
        self.image_threshold = None if 0 < rate < smallest else calibration.image_threshold(rate)
        self.provenance: dict[str, Any] = {
            "method": method,
            "calibration_id": calibration.calibration_id,
            "identity": calibration.identity,
            "healthy": {"subjects": calibration.n_subjects, "scores": calibration.subject_scores.tolist()},
            "versions": versions(),
        }

    def covers(self, level: str | int | float) -> bool:
        """Tell whether a slice taken at `level` may be compared with those that were calibrated on."""
        return self.calibration.identity["level"] in ("all", level)

    def __call__(
        self,
        slices: Sequence[ScreenedSlice],
        own: int,
        level: str | int | float,
        volumes: Volumes,
        findings: Sequence[Finding] = (),
        source: Mapping[str, Any] | None = None,
    ) -> ScreeningResult:
        """Give the outcome of one scan.

        The score that counts is that of the one slice that the calibration covers, or the highest where it covers all
        levels. One pixel above the pixel threshold says nothing about the outcome.

        Args:
            slices: that were screened, from inferior to superior.
            own: index of the one at `level`.
            level: as it was asked for.
            volumes: what was computed of them.
            findings: of the acceptance gate so far.
            source: facts about the scan.
        """
        findings, source = list(findings), source or {}
        chosen = slices[own]
        if chosen.reconstruction is not None:
            findings += distribution_findings(chosen.image, chosen.reconstruction, self.calibration.agreements)
            if refusal := refusal_of(findings):
                return self.refuse(refusal, findings, source)
        threshold = self.calibration.pixel_threshold
        several = len(slices) > 1
        regions, labels = find_regions(volumes.anomaly_map, volumes.affine, threshold, volumes=several)
        measured: dict[str, Any] = {
            "findings": tuple(findings),
            "pixel_threshold": threshold,
            "slices": tuple(slices),
            "regions": regions,
            "affine": volumes.affine,
            "map_volume": volumes.anomaly_map,
            "reconstruction_volume": volumes.reconstruction,
            "regions_volume": labels,
            "source": source,
            "provenance": self.provenance,
        }
        if self.image_threshold is None or not self.covers(level):
            refusal = InputError("not_calibrated", *self._lacking(level))
            return ScreeningResult("not_assessable", refusal.code, str(refusal), **measured)
        all_levels = self.calibration.identity["level"] == "all"
        scored = max(range(len(slices)), key=lambda i: slices[i].score) if all_levels else own
        score = slices[scored].score
        return ScreeningResult(
            "suspicious" if score > self.image_threshold else "normal",
            score=score,
            percentile=self.calibration.percentile(score),
            p_value=self.calibration.p_value(score),
            image_threshold=self.image_threshold,
            false_positive_rate=self.rate,
            scored_slice=scored,
            **measured,
        )

    def refuse(
        self, refusal: InputError, findings: Sequence[Finding] = (), source: Mapping[str, Any] | None = None
    ) -> ScreeningResult:
        """The result of a scan that was not scored."""
        return ScreeningResult(
            "not_assessable",
            refusal.code,
            str(refusal),
            tuple(findings),
            source=source or {},
            provenance=self.provenance,
        )

    def _lacking(self, level: str | int | float) -> tuple[str, str]:
        """What the calibration lacks to judge a slice at `level`, and what can be done about it."""
        if not self.covers(level):
            return f"slice {level}; accepted: {self.calibration.identity['level']}", ""
        fewest = math.ceil(1 / self.rate - 1e-9) - 1
        people = f"{self.calibration.n_subjects} healthy people; accepted: {fewest} or more"
        return f"{people} for a false positive rate of {self.rate:g}", "Calibrate on more, or ask for a higher rate"


def refusal_of(findings: Sequence[Finding]) -> InputError | None:
    """The first finding that refuses the scan, in words; None where none does."""
    finding = next((finding for finding in findings if finding.refused), None)
    if finding is None:
        return None
    return InputError(finding.code, f"{finding.measured}; accepted: {finding.limit}", finding.hint)
