"""What screening one scan gives."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pathology_screen.errors import InputError
from pathology_screen.space import Fit

Outcome = Literal["normal", "suspicious", "not_assessable"]
Tissue = Literal["grey", "white", "other"]
Point = tuple[float, float, float]

MIDLINE_MM = 5.0
"""A peak nearer than this to the plane between the hemispheres is on neither side."""


@dataclass(frozen=True)
class Finding:
    """What a rule of the acceptance gate found in a scan: its code, a key of `errors.REFUSALS` or
    `errors.WARNINGS`; the value that was measured or stated, and what is accepted; whether the scan
    is refused for it, or it is a warning; and what the user can do about it."""

    code: str
    measured: str
    limit: str
    refused: bool = True
    hint: str = ""


@dataclass
class ScanContext:
    """What is known of a scan so far; it grows on the way through the gate: facts without patient
    data (`Scan.source`), findings, wall time of the stages "reading", "preparation" and
    "screening", the fit of the brain to the template (None for a single slice), and why `inspect`
    would refuse the scan (None where it is accepted)."""

    source: Mapping[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    fit: Fit | None = None
    refusal: InputError | None = None

    def accept(self, findings: Iterable[Finding]) -> None:
        """Note findings of the gate; raise InputError for the first that refuses the scan."""
        found = list(findings)
        self.findings += found
        for one in found:
            if one.refused:
                raise InputError(one.code, f"{one.measured}; accepted: {one.limit}", one.hint)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long a stage takes, also where it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = time.perf_counter() - start


@dataclass(frozen=True)
class Region:
    """A connected region in which the anomaly map exceeds the pixel threshold.

    Places are RAS+ mm of the scan and mm of MNI152 space (None for a slice that was not
    registered), of the centre of gravity and of the highest value of the map.

    Attributes:
        label: value in `ScreeningResult.regions_volume`; 1 has the highest peak.
        area_mm2: area on the slice, in the scan's own millimetres.
        peak, mean: of the anomaly map.
        tissue: that most of the region is, by the MNI152 maps of grey and white matter; "other" is
            fluid, or outside the brain; None without registration.
    """

    label: int
    area_mm2: float
    centroid_mm: Point
    centroid_mni_mm: Point | None
    peak: float
    peak_mm: Point
    peak_mni_mm: Point | None
    mean: float
    tissue: Tissue | None

    @property
    def side(self) -> Literal["left", "right", "midline"] | None:
        """The patient's side of the peak, by x in MNI152 space; None without registration."""
        if self.peak_mni_mm is None:
            return None
        x = self.peak_mni_mm[0]
        return "midline" if abs(x) < MIDLINE_MM else "left" if x < 0 else "right"


@dataclass(frozen=True, eq=False)
class ScreenedSlice:
    """The slice of a scan on the network grid: rows to posterior, columns to the patient's left.

    Arrays are (size, size) and affines (4, 4). What concerns the template is None for a slice that
    was not registered.

    Attributes:
        score: image score.
        image, reconstruction: float32, in [0, 1]; None from a method that does not reconstruct.
        anomaly_map: at least 0.
        labels: uint16, the label of the region or 0.
        affine, mni_affine: (row, column, 0, 1) -> RAS+ mm of the scan, and mm of MNI152 space.
        plane_mm: z of the plane in MNI152 space.
        fit: of the brain to the template.
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
        outcome: "suspicious" where the score exceeds the image threshold; "not_assessable" where
            the reader or the acceptance gate refused the scan; else "normal".
        code, reason: why it was not assessable: a key of `errors.REFUSALS` (else None), and words.
        findings: findings of the acceptance gate, warnings included.
        score: image score; None without an outcome.
        percentile: share, 0 to 100, of the calibration's people whose score is at most this one.
        p_value: conformal p-value; "suspicious" where it is at most `false_positive_rate`.
        image_threshold: limit of the score; None where the calibration does not cover the slice.
        pixel_threshold: limit of the map, which draws the regions alone.
        false_positive_rate: share of healthy people that the image threshold allows.
        slice, regions: the slice that was screened; its regions, highest peak first.
        affine: (4, 4), voxel of the scan -> RAS+ mm.
        map_volume, reconstruction_volume: on the scan's voxels, (I, J, K) float32, zero off the
            plane; None from a method that does not reconstruct.
        regions_volume: (I, J, K) uint16, the label of the region or 0.
        source, seconds: see `ScanContext`.
        provenance: hashes and versions of what made the result, JSON values.

    A scan that is not assessable has neither score, slice nor volumes; with the code
    "not_calibrated" it has slice and volumes, and no score.

    >>> contrast = Finding("perhaps_contrast_agent", "T1 high contrast", "no agent", refused=False)
    >>> [one.code for one in ScreeningResult("normal", findings=(contrast,)).warnings]
    ['perhaps_contrast_agent']
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
