"""Parallel slices as one evenly spaced volume, by positions and orientations alone, or why not."""

from typing import TYPE_CHECKING

import numpy as np

from pathology_screen.errors import InputError

if TYPE_CHECKING:
    import highdicom

ORIENTATION_TOLERANCE = 1e-3  # greatest difference between direction cosines; 0.06 degrees
UNEVEN = 0.01  # greatest deviation of a gap between slices from their mean, relative
ROUNDING_MM = 0.02  # the same in mm, for small gaps between positions rounded to two decimals
SPACING_TOLERANCE = 1e-4  # greatest relative difference between pixel spacings


def check_parallel(orientations: np.ndarray) -> None:
    """Refuse slices that do not share one ImageOrientationPatient, (N, 6): "mixed_orientation", or
    "missing_geometry" without perpendicular units."""
    difference = np.ptp(orientations, axis=0).max()
    if difference > ORIENTATION_TOLERANCE:
        detail = f"direction cosines differ by {difference:.2g}; "
        detail += f"at most {ORIENTATION_TOLERANCE:g} is accepted"
        hint = "Separate the localizer or the second stack from the series"
        raise InputError("mixed_orientation", detail, hint)
    row, column = orientations[0].reshape(2, 3)
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        detail = "ImageOrientationPatient is not two perpendicular unit vectors"
        raise InputError("missing_geometry", detail)


def stack_slices(
    positions: np.ndarray,
    orientation: np.ndarray,
    spacings: np.ndarray,
    rows: int,
    columns: int,
    thickness: float,
) -> "tuple[highdicom.VolumeGeometry, list[int]]":
    """Order slices of positions (N, 3), one orientation (6,) and spacings (N, 2), as DICOM has
    them, along their normal: the geometry in space, axes (column, row, slice), and their indices in
    order. The thickness is that of a slice which is the only one.

    Slices must be perpendicular to the line through their positions to 2.5 degrees (highdicom's
    tolerance; "not_a_stack"), alike in spacing ("mixed_size"), and pass `check_even`.
    """
    import highdicom  # MONAI Label's environment cannot have it, and asks for the other checks

    if np.any(np.ptp(spacings, axis=0) > SPACING_TOLERANCE * spacings.min()):
        ends = zip(spacings.min(axis=0), spacings.max(axis=0))
        detail = " and ".join(f"{least:.6g} to {most:.6g} mm" for least, most in ends)
        raise InputError("mixed_size", detail)
    # without what rounding left of skew, which highdicom would refuse
    row, column = orientation.reshape(2, 3)
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    cosines = np.concatenate([row, column / np.linalg.norm(column)])
    extent = np.ptp(positions @ np.cross(cosines[:3], cosines[3:]))  # mm
    tolerance = _gap_tolerance(extent / max(len(positions) - 1, 1))
    step, places = highdicom.spatial.get_volume_positions(
        positions.tolist(), cosines.tolist(), atol=tolerance
    )
    if step is None or places is None:
        check_even(positions, cosines)
        raise InputError("not_a_stack", hint="Resample a volume with tilted gantry first")
    order = np.argsort(places).tolist()  # highdicom counts against the normal
    geometry = highdicom.VolumeGeometry.from_attributes(
        image_position=positions[order[0]],
        image_orientation=cosines.tolist(),
        pixel_spacing=spacings[0],
        spacing_between_slices=step if len(order) > 1 else thickness,
        rows=rows,
        columns=columns,
        number_of_frames=len(order),
        coordinate_system="PATIENT",
    )
    return geometry.flip_spatial(0).permute_spatial_axes((2, 1, 0)), order[::-1]


def check_even(positions: np.ndarray, orientation: np.ndarray) -> None:
    """Refuse slices at positions (N, 3) of one orientation (6,) with a gap that is neither within
    1 % of the mean gap, nor within 0.02 mm of a small one: "duplicate_slice", "missing_slice",
    "uneven_spacing"."""
    gaps = np.diff(np.sort(positions @ np.cross(orientation[:3], orientation[3:])))  # mm
    if not len(gaps):
        return
    if gaps.min() < 0.01:
        detail = f"{np.count_nonzero(gaps < 0.01)} of {len(positions)} slices"
        hint = "The series may hold several echoes or time points, or one file twice"
        raise InputError("duplicate_slice", detail, hint)
    tolerance = _gap_tolerance(gaps.mean())
    if np.abs(gaps - gaps.mean()).max() <= tolerance:
        return
    steps = gaps / gaps.min()
    missing = int(np.rint(steps).sum()) - len(gaps)
    if missing and np.allclose(steps, np.rint(steps), atol=0.05):
        raise InputError("missing_slice", f"{missing} missing between {len(positions)} slices")
    accepted = f"{tolerance:.3f} mm from the mean are accepted"
    raise InputError("uneven_spacing", f"{gaps.min():.3f} to {gaps.max():.3f} mm; {accepted}")


def _gap_tolerance(gap: float) -> float:
    """Greatest deviation in mm of a gap between slices from the mean gap."""
    return max(UNEVEN * gap, min(ROUNDING_MM, 5 * UNEVEN * gap))
