"""What DICOM and NIfTI share: which geometry and which voxels are accepted, and which axial level
is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pathology_screen.errors import InputError
from pathology_screen.geometry import axial_level, axial_orientation, spacing

MAX_EXTENT = 2048
"""Most voxels along one axis."""
MAX_VOXELS = 2**28
"""Most voxels of a volume: 1 GiB as float32."""
VOXEL_SIZE_MM = (0.05, 20.0)
"""Least and greatest plausible size of a voxel along any axis."""
MAX_OBLIQUITY_DEG = 30.0
"""Greatest angle between an axis of the volume and the axis of the patient closest to it."""
ORIENTATION_TOLERANCE = 1e-3
"""Greatest difference between the direction cosines of two slices of one volume; 0.06 degrees."""
UNEVEN = 0.01
"""Greatest deviation of a gap between slices from their mean, relative."""
ROUNDING_MM = 0.02
"""The same in mm, for gaps so small that positions rounded to two decimals differ by more than that."""


def check_shape(shape: Sequence[int]) -> None:
    """Refuse a volume larger than any brain scan, before anything of that size is read.

    Raises:
        InputError: "too_large".
    """
    if max(shape) > MAX_EXTENT or math.prod(shape) > MAX_VOXELS:
        size = " x ".join(map(str, shape))
        raise InputError(
            "too_large",
            f"{size} voxels; at most {MAX_EXTENT} an axis and {MAX_VOXELS} in all are read",
        )


def check_affine(affine: np.ndarray) -> float:
    """Refuse an affine that is not that of a brain scan in patient space.

    Args:
        affine: (4, 4), voxel index -> millimetres in RAS+.

    Returns:
        The obliquity in degrees: the largest angle between an axis of the volume and the patient's
            axis closest to it.

    Raises:
        InputError: "missing_geometry" (not finite), "singular_affine", "voxel_size",
            "sheared_affine", "oblique".
    """
    if not np.all(np.isfinite(affine)):
        raise InputError("missing_geometry", "the affine holds a number that is not finite")
    sizes = spacing(affine)
    if np.any(sizes == 0):
        raise InputError("singular_affine", "a voxel has no extent along an axis")
    if sizes.min() < VOXEL_SIZE_MM[0] or sizes.max() > VOXEL_SIZE_MM[1]:
        text = " x ".join(f"{size:.4g}" for size in sizes)
        raise InputError(
            "voxel_size", f"{text} mm; {VOXEL_SIZE_MM[0]} to {VOXEL_SIZE_MM[1]} mm are accepted"
        )
    directions = affine[:3, :3] / sizes
    if abs(np.linalg.det(directions)) < 1e-3:
        raise InputError("singular_affine", "two axes of the volume are parallel")
    if np.abs(directions.T @ directions - np.eye(3)).max() > 1e-3:
        raise InputError("sheared_affine", "resample the volume to perpendicular axes first")
    obliquity = float(np.degrees(np.arccos(np.abs(directions).max(axis=0).clip(max=1.0)).max()))
    if obliquity > MAX_OBLIQUITY_DEG:
        hint = "Reslice the volume to the patient's axes first"
        raise InputError(
            "oblique", f"{obliquity:.1f} degrees; at most {MAX_OBLIQUITY_DEG:g} are accepted", hint
        )
    return obliquity


def check_slices(shape: Sequence[int], affine: np.ndarray, axial_slice: bool) -> None:
    """Refuse one slice alone, unless it was declared an axial slice and its affine does not say
    otherwise.

    Raises:
        InputError: "not_3d" (a line or a point), "single_slice", "oblique" (declared axial, but
            lies in another plane).
    """
    flat = [axis for axis, extent in enumerate(shape) if extent == 1]
    if len(flat) > 1:
        raise InputError("not_3d", f"{len(flat)} of its three axes have one voxel")
    if flat and not axial_slice:
        raise InputError("single_slice", hint="Say axial_slice=True if it is one")
    if flat and flat[0] != axial_orientation(affine)[0]:
        raise InputError(
            "oblique",
            "the slice was declared axial, but its plane is closer to coronal or sagittal",
        )


def check_voxels(voxels: np.ndarray) -> None:
    """Refuse voxels that hold no image.

    Raises:
        InputError: "not_finite", "constant_image".
    """
    least, greatest = voxels.min(), voxels.max()  # NaN if any voxel is NaN
    if not (np.isfinite(least) and np.isfinite(greatest)):
        raise InputError("not_finite", f"{np.count_nonzero(~np.isfinite(voxels))} voxels")
    if least == greatest:
        raise InputError("constant_image", f"every voxel is {least:g}")


def gap_tolerance(gap: float) -> float:
    """Greatest deviation in mm of a gap between slices from the mean gap."""
    return max(UNEVEN * gap, min(ROUNDING_MM, 5 * UNEVEN * gap))


def axial_index(shape: Sequence[int], affine: np.ndarray, level: str) -> tuple[int, int]:
    """Return the array axis along which axial slices are stacked, and the array index of `level` on
    it."""
    axis, direction = axial_orientation(affine)
    index = axial_level(shape[axis], level)  # counted from inferior
    return axis, index if direction > 0 else shape[axis] - 1 - index


def slice_affine(affine: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Affine of the single slice `index` along `axis`."""
    shifted = affine.copy()
    shifted[:3, 3] += index * affine[:3, axis]
    return shifted
