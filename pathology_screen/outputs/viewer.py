"""The screened slices of a scan as the viewer of its report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pathology_screen.geometry import axial_orientation, spacing
from pathology_screen.outputs.layers import TIMES, colour_stops, grey_png, labels_on_slice, map_png, outlines
from pathology_screen.screening import ScreenedSlice, ScreeningResult

SCALE_BAR = 50  # mm
Point = tuple[int, int]


@dataclass(frozen=True)
class Layers:
    """A screened slice; pictures as data URIs, paths and points in tenths of a pixel, (0, 0) the corner.

    Attributes:
        level: counted from inferior.
        score: of the slice.
        image, reconstruction, anomaly_map: pictures; the second is None from a method that does not reconstruct.
        outlines: label of a region -> SVG path around it.
        peaks: label of a region whose peak is on this slice -> where.
    """

    level: int
    score: float
    image: str
    reconstruction: str | None
    anomaly_map: str
    outlines: Mapping[int, str]
    peaks: Mapping[int, Point]


@dataclass(frozen=True)
class Viewer:
    """All slices and what they share.

    Attributes:
        slices: from inferior to superior.
        shown: index of the one that is shown first.
        levels: number of axial levels of the scan.
        size: pixels per side.
        scale_bar: five centimetres in pixels.
        colours: hexadecimal, evenly spaced from the first to the last of `limits`.
        limits: values of the map, 0 and whole numbers of thresholds.
        peak_levels: label of a region -> level of its peak.
    """

    slices: list[Layers]
    shown: int
    levels: int
    size: int
    scale_bar: float
    colours: list[str]
    limits: list[float]
    peak_levels: Mapping[int, int]


def make_viewer(result: ScreeningResult) -> Viewer | None:
    """Draw the slices of a result; None where there are none."""
    affine, regions_volume, threshold = result.affine, result.regions_volume, result.pixel_threshold
    if not result.slices or affine is None or regions_volume is None or threshold is None:
        return None
    axis, direction = axial_orientation(affine)
    levels, first = regions_volume.shape[axis], result.slices[0]
    voxels = {region.label: round(_place(affine, region.peak_mm)[axis]) for region in result.regions}
    peak_levels = {label: voxel if direction > 0 else levels - 1 - voxel for label, voxel in voxels.items()}

    def layers(one: ScreenedSlice) -> Layers:
        here = [region for region in result.regions if peak_levels[region.label] == one.level]
        return Layers(
            level=one.level,
            score=one.score,
            image=grey_png(one.image),
            reconstruction=None if one.reconstruction is None else grey_png(one.reconstruction),
            anomaly_map=map_png(one.anomaly_map, threshold),
            outlines=outlines(one.anomaly_map, labels_on_slice(regions_volume, affine, one), threshold),
            peaks={region.label: _point(one, region.peak_mm) for region in here},
        )

    return Viewer(
        slices=[layers(one) for one in result.slices],
        shown=len(result.slices) // 2 if result.scored_slice is None else result.scored_slice,
        levels=levels,
        size=first.image.shape[0],
        scale_bar=round(SCALE_BAR / float(spacing(first.affine)[1]), 2),
        colours=colour_stops(),
        limits=[times * threshold for times in range(TIMES + 1)],
        peak_levels=peak_levels,
    )


def _place(affine: np.ndarray, millimetres: tuple[float, float, float]) -> np.ndarray:
    """The voxel, (3,) of fractions, at a point in RAS+ mm."""
    return np.linalg.solve(affine, np.array([*millimetres, 1.0]))[:3]


def _point(one: ScreenedSlice, millimetres: tuple[float, float, float]) -> Point:
    """Where a point is in the picture of a slice: (x, y); the centre of a pixel is at its half."""
    row, column = _place(one.affine, millimetres)[:2] + 0.5
    return round(10 * float(column)), round(10 * float(row))
