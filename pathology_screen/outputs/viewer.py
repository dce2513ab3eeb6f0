"""The screened slice of a scan as the viewer of its report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pathology_screen.geometry import spacing
from pathology_screen.outputs.layers import (
    TIMES,
    colour_stops,
    grey_png,
    map_png,
    outline,
    outlines,
)
from pathology_screen.outputs.template_outline import template_on_slice
from pathology_screen.result import ScreenedSlice, ScreeningResult

SCALE_BAR = 50  # mm
Point = tuple[int, int]


@dataclass(frozen=True)
class Viewer:
    """A screened slice; pictures as data URIs, paths and points in tenths of a pixel, (0, 0) the
    corner.

    Attributes:
        size: pixels per side.
        image, reconstruction, anomaly_map: pictures; the second is None from a method that does not
            reconstruct.
        template: SVG path around the brain of the template; None for a slice that was not
            registered.
        outlines: label of a region -> SVG path around it.
        peaks: label of a region -> where its peak is.
        scale_bar: five centimetres in pixels.
        colours: hexadecimal, evenly spaced from the first to the last of `limits`.
        limits: values of the map, 0 and whole numbers of thresholds.
    """

    size: int
    image: str
    reconstruction: str | None
    anomaly_map: str
    template: str | None
    outlines: Mapping[int, str]
    peaks: Mapping[int, Point]
    scale_bar: float
    colours: list[str]
    limits: list[float]


def make_viewer(result: ScreeningResult) -> Viewer | None:
    """Draw the slice of a result; None where there is none."""
    one, threshold = result.slice, result.pixel_threshold
    if one is None or threshold is None:
        return None
    template = template_on_slice(one)
    return Viewer(
        size=one.image.shape[0],
        image=grey_png(one.image),
        reconstruction=None if one.reconstruction is None else grey_png(one.reconstruction),
        anomaly_map=map_png(one.anomaly_map, threshold),
        template=None if template is None else outline(template),
        outlines=outlines(one.anomaly_map, one.labels, threshold),
        peaks={region.label: _point(one, region.peak_mm) for region in result.regions},
        scale_bar=round(SCALE_BAR / float(spacing(one.affine)[1]), 2),
        colours=colour_stops(),
        limits=[times * threshold for times in range(TIMES + 1)],
    )


def _point(one: ScreenedSlice, millimetres: tuple[float, float, float]) -> Point:
    """Where a point in mm of the scan is in the picture of a slice: (x, y); the centre of a pixel
    is at its half."""
    row, column = np.linalg.solve(one.affine, np.array([*millimetres, 1.0]))[:2] + 0.5
    return round(10 * float(column)), round(10 * float(row))
