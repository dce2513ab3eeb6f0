"""Parallel slices as one evenly spaced volume, by their positions and orientations alone, or why they are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathology_screen.errors import InputError

if TYPE_CHECKING:
    import highdicom

ORIENTATION_TOLERANCE = 1e-4
"""Greatest difference between the direction cosines of two slices of one volume."""


def check_parallel(orientations: np.ndarray) -> None:
    """Refuse slices that do not share one orientation.

    Args:
        orientations: (N, 6), ImageOrientationPatient.

    Raises:
        InputError: "mixed_orientation", or "missing_geometry" where it is not two perpendicular unit vectors.
    """
    if np.ptp(orientations, axis=0).max() > ORIENTATION_TOLERANCE:
        raise InputError("mixed_orientation", hint="Separate the localizer or the second stack from the series")
    row, column = orientations[0].reshape(2, 3)
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        raise InputError("missing_geometry", "ImageOrientationPatient is not two perpendicular unit vectors")


def stack_slices(
    positions: np.ndarray, orientation: np.ndarray, spacings: np.ndarray, rows: int, columns: int, thickness: float
) -> tuple[highdicom.VolumeGeometry, list[int]]:
    """Order slices along their normal (row direction x column direction) and place them in space.

    Slices must be perpendicular to the line through their positions to 2.5 degrees, and each gap must be within 1 % of
    the mean gap (highdicom's tolerances).

    Args:
        positions: (N, 3), ImagePositionPatient in mm, LPS+.
        orientation: (6,), ImageOrientationPatient of all.
        spacings: (N, 2), PixelSpacing in mm.
        rows: of every slice.
        columns: of every slice.
        thickness: extent in mm of a slice that is the only one; not used where there are several.

    Returns:
        The geometry, axes (column, row, slice), and the indices of the slices in their order.

    Raises:
        InputError: "mixed_size", "duplicate_slice", "missing_slice", "uneven_spacing", "not_a_stack".
    """
    import highdicom  # MONAI Label's environment cannot have it, and asks for the other checks

    if np.ptp(spacings, axis=0).any():
        raise InputError("mixed_size", "several pixel spacings")
    step, places = highdicom.spatial.get_volume_positions(positions.tolist(), orientation.tolist())
    if step is None or places is None:
        raise _not_evenly_stacked(positions, np.cross(orientation[:3], orientation[3:]))
    order = np.argsort(places).tolist()  # highdicom counts against the normal
    geometry = highdicom.VolumeGeometry.from_attributes(
        image_position=positions[order[0]],
        image_orientation=orientation.tolist(),
        pixel_spacing=spacings[0],
        spacing_between_slices=step if len(order) > 1 else thickness,
        rows=rows,
        columns=columns,
        number_of_frames=len(order),
        coordinate_system="PATIENT",
    )
    return geometry.flip_spatial(0).permute_spatial_axes((2, 1, 0)), order[::-1]


def check_even(positions: np.ndarray, orientation: np.ndarray) -> None:
    """Refuse slices of one orientation whose gaps along the normal differ by more than 1 % of their mean.

    Args:
        positions: (N, 3), ImagePositionPatient in mm, LPS+.
        orientation: (6,), ImageOrientationPatient of all.

    Raises:
        InputError: "duplicate_slice", "missing_slice", "uneven_spacing".
    """
    normal = np.cross(orientation[:3], orientation[3:])
    gaps = np.diff(np.sort(positions @ normal))  # mm
    if len(gaps) and not np.allclose(gaps, gaps.mean(), rtol=0.01):
        raise _not_evenly_stacked(positions, normal)


def _not_evenly_stacked(positions: np.ndarray, normal: np.ndarray) -> InputError:
    gaps = np.diff(np.sort(positions @ normal))  # mm
    if gaps.min() < 0.01:
        hint = "The series may hold several echoes or time points, or one file twice"
        return InputError("duplicate_slice", f"{np.count_nonzero(gaps < 0.01)} of {len(positions)} slices", hint)
    steps = gaps / gaps.min()
    missing = int(np.rint(steps).sum()) - len(gaps)
    if missing and np.allclose(steps, np.rint(steps), atol=0.05):
        return InputError("missing_slice", f"{missing} missing between {len(positions)} slices")
    if np.allclose(gaps, gaps.mean(), rtol=0.01):
        return InputError("not_a_stack", hint="Resample a volume with tilted gantry first")
    return InputError("uneven_spacing", f"{gaps.min():.3f} to {gaps.max():.3f} mm")
