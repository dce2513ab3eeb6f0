"""What screening one scan gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pathology_screen.space import Fit

Outcome = Literal["normal", "suspicious", "not_assessable"]
Side = Literal["left", "right", "midline"]
Point = tuple[float, float, float]

MIDLINE_MM = 5.0
"""A peak nearer than this to the plane between the hemispheres is on neither side."""


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
        area_mm2: on the slice, in the scan's own millimetres.
        centroid_mm: centre of gravity, RAS+ mm of the scan.
        peak: highest value of the anomaly map in it.
        peak_mm: where that is, RAS+ mm of the scan.
        peak_mni_mm: likewise in MNI152 space; None for a slice that was not registered.
        mean: of the anomaly map in it.
    """

    label: int
    area_mm2: float
    centroid_mm: Point
    peak: float
    peak_mm: Point
    peak_mni_mm: Point | None
    mean: float

    @property
    def side(self) -> Side | None:
        """The patient's side that the peak lies on, by x in MNI152 space; None for a slice that was
        not registered."""
        if self.peak_mni_mm is None:
            return None
        x = self.peak_mni_mm[0]
        return "midline" if abs(x) < MIDLINE_MM else "left" if x < 0 else "right"


@dataclass(frozen=True, eq=False)
class ScreenedSlice:
    """The slice of a scan on the network grid: rows to posterior, columns to the patient's left.

    Attributes:
        score: image score.
        image: (size, size), float32, in [0, 1].
        reconstruction: the pseudo-healthy slice, the same shape; None from a method that does not
            reconstruct.
        anomaly_map: the same shape, at least 0.
        labels: the same shape, uint16, the label of the region or 0.
        affine: (4, 4), (row, column, 0, 1) -> RAS+ mm of the scan.
        plane_mm: z of the plane in MNI152 space; None for a slice that was not registered.
        mni_affine: (4, 4), (row, column, 0, 1) -> mm of MNI152 space; None likewise.
        fit: how well the brain fits the template, `dice` and `correlation`; None likewise.
    """

    score: float
    image: np.ndarray
    reconstruction: np.ndarray | None
    anomaly_map: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    plane_mm: float | None = None
    mni_affine: np.ndarray | None = None
    fit: Fit | None = None


@dataclass(frozen=True, eq=False)
class ScreeningResult:
    """The outcome of screening one scan, and what it rests on.

    Attributes:
        outcome: "suspicious" where the score exceeds the image threshold; "not_assessable" where a
            rule of the acceptance gate or the reader refused the scan; else "normal".
        code: why it was not assessable, a key of `errors.REFUSALS`; None otherwise.
        reason: the same in words, with the measured value and the limit.
        findings: what the acceptance gate found, warnings included.
        score: of the slice; None without an outcome.
        percentile: share, 0 to 100, of the healthy people of the calibration whose score is at most
            this one.
        p_value: conformal p-value; the outcome is "suspicious" where it is at most
            `false_positive_rate`.
        image_threshold: of the score; None where the calibration does not cover the slice.
        pixel_threshold: of the map; it draws the regions and has no part in the outcome.
        false_positive_rate: of healthy people, that the image threshold is for.
        slice: that was screened.
        regions: highest peak first.
        affine: (4, 4), voxel of the scan -> RAS+ mm.
        map_volume: anomaly map on the voxels of the scan, (I, J, K) float32, zero where the plane
            does not cut it.
        reconstruction_volume: likewise; None from a method that does not reconstruct.
        regions_volume: (I, J, K) uint16, the label of the region or 0.
        source: facts about the scan without patient data (`Scan.source`).
        provenance: hashes and versions of what made the result, JSON values.
        seconds: wall time of "reading", "preparation" (with brain extraction) and "screening".

    A scan that is not assessable has neither score, slice nor volumes; with the code
    "not_calibrated" it has slice and volumes, and no score.
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
    slice: ScreenedSlice | None = None
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
