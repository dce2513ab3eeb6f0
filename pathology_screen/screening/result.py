"""What screening one scan gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Outcome = Literal["normal", "suspicious", "not_assessable"]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Finding:
    """What a rule of the acceptance gate found in a scan.

    Attributes:
        code: a key of `errors.REFUSALS` or `errors.WARNINGS`.
        measured: the value that was measured or stated.
        limit: what is accepted.
        refused: whether the scan is refused; otherwise it is a warning.
        hint: what the user can do about it.
    """

    code: str
    measured: str
    limit: str
    refused: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Region:
    """A connected region in which the anomaly map exceeds the pixel threshold.

    Attributes:
        label: its value in `ScreeningResult.regions_volume`; 1 is the one with the highest peak.
        voxels: number of voxels of the scan.
        area_mm2: on the slice where it is largest.
        volume_ml: voxels times their volume; None where one slice alone was screened.
        centroid_mm: centre of gravity of its voxels, RAS+ mm.
        peak: highest value of the anomaly map in it.
        peak_mm: where that is, RAS+ mm.
        mean: of the anomaly map in it.
        levels: first and last axial level, counted from inferior.
    """

    label: int
    voxels: int
    area_mm2: float
    volume_ml: float | None
    centroid_mm: Point
    peak: float
    peak_mm: Point
    mean: float
    levels: tuple[int, int]


@dataclass(frozen=True, eq=False)
class ScreenedSlice:
    """One axial slice on the network grid: rows to posterior, columns to the patient's left.

    Attributes:
        level: counted from the lowest level of the volume.
        score: mean of the anomaly map (of MKD the discrepancy of its two networks).
        image: (size, size), float32, in [0, 1].
        reconstruction: the pseudo-healthy slice, the same shape; None from a method that does not reconstruct.
        anomaly_map: the same shape, at least 0.
        affine: (4, 4), (row, column, 0, 1) -> RAS+ mm.
    """

    level: int
    score: float
    image: np.ndarray
    reconstruction: np.ndarray | None
    anomaly_map: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True, eq=False)
class ScreeningResult:
    """The outcome of screening one scan, and what it rests on.

    Attributes:
        outcome: "suspicious" where the score exceeds the image threshold; "not_assessable" where a rule of the
            acceptance gate or the reader refused the scan; else "normal".
        code: why it was not assessable, a key of `errors.REFUSALS`; None otherwise.
        reason: the same in words, with the measured value and the limit.
        findings: what the acceptance gate found, warnings included.
        score: of the slice with the highest one among those that the calibration covers; None without an outcome.
        percentile: share, 0 to 100, of the healthy people of the calibration whose score is at most this one.
        p_value: conformal p-value; the outcome is "suspicious" where it is at most `false_positive_rate`.
        image_threshold: of the score; None where the calibration does not cover the screened slices.
        pixel_threshold: of the map; it draws the regions and has no part in the outcome.
        false_positive_rate: of healthy people, that the image threshold is for.
        slices: the slices that were screened, from inferior to superior.
        scored_slice: index in `slices` of the one whose score counts.
        regions: highest peak first.
        affine: (4, 4), voxel of the scan -> RAS+ mm.
        map_volume: anomaly map on the voxels of the scan, (I, J, K) float32, zero outside the screened slices.
        reconstruction_volume: likewise; None from a method that does not reconstruct.
        regions_volume: (I, J, K) uint16, the label of the region or 0.
        source: facts about the scan without patient data (`Scan.source`).
        provenance: hashes and versions of what made the result, JSON values.
        seconds: wall time of "reading", "preparation" (with brain extraction) and "screening".

    A scan that is not assessable has neither score, slices nor volumes; with the code "not_calibrated" it has slices
    and volumes, and no score.
    """

    outcome: Outcome
    code: str | None = None
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    score: float | None = None
    percentile: float | None = None
    p_value: float | None = None
    image_threshold: float | None = None
    pixel_threshold: float | None = None
    false_positive_rate: float | None = None
    slices: tuple[ScreenedSlice, ...] = ()
    scored_slice: int | None = None
    regions: tuple[Region, ...] = ()
    affine: np.ndarray | None = None
    map_volume: np.ndarray | None = None
    reconstruction_volume: np.ndarray | None = None
    regions_volume: np.ndarray | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that did not lead to a refusal."""
        return tuple(finding for finding in self.findings if not finding.refused)
