"""Connected regions of an anomaly map above a threshold, measured in millimetres."""

from dataclasses import replace

import numpy as np
from scipy import ndimage as ndi
from skimage.measure import label, regionprops

from pathology_screen.geometry import map_points
from pathology_screen.result import Point, Region, Tissue
from pathology_screen.space import TISSUES, load_tissue

SMALLEST_MM2 = 10.0
"""Smaller regions are not listed: a blob of the blur's own width is noise."""


def find_regions(
    anomaly_map: np.ndarray,
    affine: np.ndarray,
    threshold: float,
    mni_affine: np.ndarray | None = None,
) -> tuple[tuple[Region, ...], np.ndarray]:
    """Label the regions of a slice where the map exceeds the threshold, and measure them.

    Pixels that share a corner belong together. Regions below `SMALLEST_MM2` are left out.

    Args:
        anomaly_map: (H, W), at least 0.
        affine: (4, 4), (row, column, 0, 1) -> RAS+ mm of the scan.
        threshold: above 0.
        mni_affine: (4, 4), the same to mm of MNI152 space; None without registration.

    Returns:
        The regions, highest peak first, and their labels (H, W), uint16.
    """
    pixel_area = float(np.linalg.norm(np.cross(affine[:3, 0], affine[:3, 1])))  # mm2
    labels = label(anomaly_map > threshold, connectivity=2)
    found: list[tuple[int, Region]] = []
    for props in regionprops(labels):
        if props.area * pixel_area < SMALLEST_MM2:
            continue
        values = anomaly_map[tuple(props.coords.T)]
        peak = props.coords[values.argmax()]
        region = Region(
            label=0,
            area_mm2=float(props.area) * pixel_area,
            centroid_mm=_millimetres(affine, np.asarray(props.centroid)),
            centroid_mni_mm=(
                None if mni_affine is None else _millimetres(mni_affine, np.asarray(props.centroid))
            ),
            peak=float(values.max()),
            peak_mm=_millimetres(affine, peak),
            peak_mni_mm=None if mni_affine is None else _millimetres(mni_affine, peak),
            mean=float(values.mean()),
            tissue=None if mni_affine is None else _tissue(mni_affine, props.coords),
        )
        found.append((props.label, region))
    renumbered = np.zeros(labels.max() + 1, np.uint16)
    regions = []
    for number, (old, region) in enumerate(sorted(found, key=lambda one: -one[1].peak), start=1):
        renumbered[old] = number
        regions.append(replace(region, label=number))
    return tuple(regions), renumbered[labels]


def _tissue(mni_affine: np.ndarray, pixels: np.ndarray) -> Tissue:
    """What most of the pixels (N, 2) are in the template."""
    places = np.c_[pixels, np.zeros(len(pixels))].T
    shares: dict[Tissue, float] = {}
    for tissue in TISSUES:
        probability = load_tissue(tissue)
        index = map_points(np.linalg.solve(probability.affine, mni_affine), places)
        values = ndi.map_coordinates(np.asarray(probability.dataobj), index, float, order=1)
        shares[tissue] = float(values.mean()) / 255
    shares["other"] = 1 - sum(shares.values())
    return max(shares, key=shares.__getitem__)


def _millimetres(affine: np.ndarray, pixel: np.ndarray) -> Point:
    x, y, z = (affine @ [*pixel, 0.0, 1.0])[:3]
    return float(x), float(y), float(z)
