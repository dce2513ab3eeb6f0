"""Connected regions of an anomaly map above a threshold, measured in millimetres."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from skimage.measure import label, regionprops

from pathology_screen.geometry import axial_orientation, spacing
from pathology_screen.screening.result import Region

SMALLEST_MM2 = 10.0
"""Regions that cover less on every slice are not listed: a blob of the blur's own width is noise."""


def find_regions(
    map_volume: np.ndarray, affine: np.ndarray, threshold: float, *, volumes: bool
) -> tuple[tuple[Region, ...], np.ndarray]:
    """Label the regions where the map exceeds the threshold, and measure them.

    Voxels belong together where they share at least a corner. Regions that cover less than `SMALLEST_MM2` on every
    axial slice are left out.

    Args:
        map_volume: (I, J, K), at least 0.
        affine: (4, 4), voxel -> RAS+ mm.
        threshold: above 0.
        volumes: whether neighbouring slices were screened, so that volumes mean something.

    Returns:
        The regions, highest peak first, and their labels (I, J, K), uint16.
    """
    axis, direction = axial_orientation(affine)
    size = spacing(affine)
    pixel_area, voxel_volume = float(np.delete(size, axis).prod()), float(size.prod())
    labels = _connected(map_volume > threshold)
    found: dict[int, Region] = {}
    for props in regionprops(labels):
        levels, counts = np.unique(props.coords[:, axis], return_counts=True)
        area = float(counts.max()) * pixel_area
        if area < SMALLEST_MM2:
            continue
        values = map_volume[tuple(props.coords.T)]
        first, last = (int(levels[0]), int(levels[-1]))
        if direction < 0:
            first, last = map_volume.shape[axis] - 1 - last, map_volume.shape[axis] - 1 - first
        found[props.label] = Region(
            label=0,
            voxels=int(counts.sum()),
            area_mm2=area,
            volume_ml=float(counts.sum()) * voxel_volume / 1000 if volumes else None,
            centroid_mm=_millimetres(affine, np.asarray(props.centroid)),
            peak=float(values.max()),
            peak_mm=_millimetres(affine, props.coords[values.argmax()]),
            mean=float(values.mean()),
            levels=(first, last),
        )
    renumbered = np.zeros(labels.max() + 1, np.uint16)
    regions = []
    for number, (old, region) in enumerate(sorted(found.items(), key=lambda one: -one[1].peak), start=1):
        renumbered[old] = number
        regions.append(replace(region, label=number))
    return tuple(regions), renumbered[labels]


def _connected(mask: np.ndarray) -> np.ndarray:
    """Labels of the connected parts of a mask; only the box that holds them is searched, since most scans are air."""
    labels = np.zeros(mask.shape, np.int32)
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if all(map(len, places)):
        box = tuple(slice(place[0], place[-1] + 1) for place in places)
        labels[box] = label(mask[box], connectivity=3)
    return labels


def _millimetres(affine: np.ndarray, voxel: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (affine @ np.append(voxel, 1.0))[:3]
    return float(x), float(y), float(z)
