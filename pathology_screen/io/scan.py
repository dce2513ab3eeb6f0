"""The one form in which a scan leaves the readers, and what is refused in every format."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pathology_screen.errors import InputError
from pathology_screen.geometry import axial_orientation, spacing

MAX_EXTENT, MAX_VOXELS = 2048, 2**28  # along one axis, and of a volume: 1 GiB as float32
VOXEL_SIZE_MM = (0.05, 20.0)  # least and greatest plausible size of a voxel along any axis
MAX_OBLIQUITY_DEG = 30.0  # greatest angle between an axis of the volume and the patient's closest


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume in the order in which it was stored.

    Attributes:
        voxels: float32, (I, J, K), real-world intensities (rescale applied, MONOCHROME1 inverted)
            above those of the background, which is 0 (see `io.intensities`). DICOM slices lie
            along the last axis.
        affine: float64, (4, 4), voxel index -> mm, RAS+.
        source: plain (JSON) facts without patient data. Always `format` ("dicom", "nifti" or
            "png"), `file_count` and `obliquity_deg` (angle between the volume's and the patient's
            axes); for NIfTI `affine_source` and, where the header states a second, different
            orientation, `other_orientation`; for DICOM `series_uid`, `transfer_syntax`,
            `ignored_file_count` and what `io.acquisition` knows, where a missing entry means
            unknown.
        subject: hash of a DICOM series' PatientID, to count people by; None where it is absent. It
            is never written anywhere.

    >>> scan = Scan(np.ones((4, 5, 6), np.float32), np.diag([2.0, 2.0, 3.0, 1.0]))
    >>> spacing(scan.affine).tolist()
    [2.0, 2.0, 3.0]
    """

    voxels: np.ndarray
    affine: np.ndarray
    source: Mapping[str, Any] = field(default_factory=dict)
    subject: str | None = field(default=None, repr=False)


def check_shape(shape: Sequence[int]) -> None:
    """Refuse a volume larger than any brain scan ("too_large"), before it is read."""
    if max(shape) > MAX_EXTENT or math.prod(shape) > MAX_VOXELS:
        size = " x ".join(map(str, shape))
        limits = f"at most {MAX_EXTENT} an axis and {MAX_VOXELS} in all are read"
        raise InputError("too_large", f"{size} voxels; {limits}")


def check_affine(affine: np.ndarray) -> float:
    """Refuse an affine (4, 4) in RAS+ mm that is not that of a brain scan in patient space
    ("missing_geometry", "singular_affine", "voxel_size", "sheared_affine", "oblique"), and give the
    obliquity: the largest angle in degrees between an axis of the volume and the patient's closest
    to it."""
    if not np.all(np.isfinite(affine)):
        raise InputError("missing_geometry", "the affine holds a number that is not finite")
    sizes = spacing(affine)
    if np.any(sizes == 0):
        raise InputError("singular_affine", "a voxel has no extent along an axis")
    low, high = VOXEL_SIZE_MM
    if sizes.min() < low or sizes.max() > high:
        text = " x ".join(f"{size:.4g}" for size in sizes)
        raise InputError("voxel_size", f"{text} mm; {low} to {high} mm are accepted")
    directions = affine[:3, :3] / sizes
    if abs(np.linalg.det(directions)) < 1e-3:
        raise InputError("singular_affine", "two axes of the volume are parallel")
    if np.abs(directions.T @ directions - np.eye(3)).max() > 1e-3:
        raise InputError("sheared_affine", "resample the volume to perpendicular axes first")
    obliquity = float(np.degrees(np.arccos(np.abs(directions).max(axis=0).clip(max=1.0)).max()))
    if obliquity > MAX_OBLIQUITY_DEG:
        detail = f"{obliquity:.1f} degrees; at most {MAX_OBLIQUITY_DEG:g} are accepted"
        raise InputError("oblique", detail, "Reslice the volume to the patient's axes first")
    return obliquity


def check_place(shape: Sequence[int], affine: np.ndarray, axial_slice: bool) -> float:
    """Refuse what `check_affine` does; one slice alone ("single_slice"), unless it was declared
    axial and its affine does not contradict that ("oblique"); and a line or a point ("not_3d").
    Give the obliquity in degrees, rounded."""
    obliquity = check_affine(affine)
    flat = [axis for axis, extent in enumerate(shape) if extent == 1]
    if len(flat) > 1:
        raise InputError("not_3d", f"{len(flat)} of its three axes have one voxel")
    if flat and not axial_slice:
        raise InputError("single_slice", hint="Say axial_slice=True if it is one")
    if flat and flat[0] != axial_orientation(affine)[0]:
        detail = "the slice was declared axial, but its plane is closer to coronal or sagittal"
        raise InputError("oblique", detail)
    return round(obliquity, 2)


def check_voxels(voxels: np.ndarray) -> None:
    """Refuse voxels that hold no image: "not_finite", "constant_image"."""
    least, greatest = voxels.min(), voxels.max()  # NaN if any voxel is NaN
    if not (np.isfinite(least) and np.isfinite(greatest)):
        raise InputError("not_finite", f"{np.count_nonzero(~np.isfinite(voxels))} voxels")
    if least == greatest:
        raise InputError("constant_image", f"every voxel is {least:g}")
