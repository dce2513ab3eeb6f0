"""Where an image lies in the patient: axial orientation, axial levels, and a part of a volume
inside the whole."""

from __future__ import annotations

import numpy as np
from nibabel.orientations import io_orientation

from pathology_screen.errors import ConfigError, InputError

DISPLAY_AXES = "PLS"
"""Axis codes of the network grid: rows run to posterior, columns to the patient's left, levels to superior."""


def axial_orientation(affine: np.ndarray) -> tuple[int, int]:
    """Find the array axis along which axial slices are stacked.

    Args:
        affine: (4, 4), voxel index -> millimetres in RAS+.

    Returns:
        The axis (0, 1 or 2) closest to the patient's inferior-superior axis, and +1 where the index
        rises to superior, -1 where it rises to inferior.
    """
    orientation = io_orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    return axis, int(orientation[axis, 1])


def spacing(affine: np.ndarray) -> np.ndarray:
    """Distance in mm between neighbouring voxels along each array axis, shape (3,)."""
    return np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)


def map_points(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply an affine (4, 4) or (3, 4) to points (3, N), with the same bits at any number of
    threads.

    A matrix product would share its work among threads, and round by where it is cut.
    """
    matrix = np.asarray(affine, float)[:3]
    return (matrix[:, :3, None] * points).sum(axis=1) + matrix[:, 3:]


def axial_level(extent: int | tuple[int, int], level: str | int | float = "middle") -> int:
    """Choose one axial level, counted from inferior.

    Args:
        extent: number of levels of the volume; or (first, stop), the range of levels that hold
            tissue.
        level: "middle", the level n // 2 of the n in the extent; a whole number, that level of the
            volume; or a number strictly between 0 and 1, that fraction of the extent from its
            inferior end.

    Raises:
        ConfigError: for any other level.
        InputError: "slice_out_of_range" where the level lies outside the extent.
    """
    first, stop = (0, extent) if isinstance(extent, int | np.integer) else extent
    if level == "middle":
        return first + (stop - first) // 2
    if isinstance(level, float) and 0 < level < 1:
        return first + min(int(level * (stop - first)), stop - first - 1)
    if isinstance(level, str | float):
        raise ConfigError(
            f'a level is "middle", a whole number, or a fraction between 0 and 1, not {level!r}'
        )
    if not first <= level < stop:
        raise InputError(
            "slice_out_of_range", f"level {int(level)} of levels {first} to {stop - 1}"
        )
    return int(level)
