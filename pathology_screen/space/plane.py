"""The axial plane of MNI152 space in which slices are compared, and the way back to a scan's
voxels.

The plane is one level of the 197 x 233 x 189 grid of 1 mm voxels whose first lies at (-98, -134,
-72) mm, shown as `geometry.DISPLAY_AXES` says: row r lies at y = 98 - r mm (anterior first), column
c at x = 98 - c mm (to the patient's left). The default level, voxel 95 or z = +23 mm, is that of
the slices which the authors of RA released; their columns run to the patient's right.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import ndimage as ndi

from pathology_screen.geometry import map_points
from pathology_screen.space.template import load_brain_template

PLANE_SHAPE = (233, 197)
PLANE_Z = 23.0
"""mm."""
FIRST = (98.0, 98.0)
"""y of the first row and x of the first column, mm."""
THINNEST = 0.5
"""mm; half the thickness of the layer of voxels that a plane is put back to, at least."""


def plane_affine(z_mm: float = PLANE_Z) -> np.ndarray:
    """Return (4, 4): (row, column, 0) of the plane -> mm of MNI152 space, RAS+.

    >>> (plane_affine() @ [98, 98, 0, 1]).tolist()
    [0.0, 0.0, 23.0, 1.0]
    """
    y, x = FIRST
    return np.array([[0, -1, 0, x], [-1, 0, 0, y], [0, 0, 1, z_mm], [0, 0, 0, 1]], float)


def take_plane(
    voxels: np.ndarray,
    affine: np.ndarray,
    to_scan: np.ndarray,
    z_mm: float = PLANE_Z,
    order: int = 1,
) -> np.ndarray:
    """Resample the plane once from the voxels (I, J, K) of a scan, linearly, or of the nearest
    where `order` is 0: (233, 197), float32, 0 where the scan shows nothing.

    `affine` (4, 4) leads from voxel index to mm of scanner space, RAS+, `to_scan` (4, 4) from mm of
    MNI152 to those.

    >>> template = load_brain_template()
    >>> take_plane(np.asarray(template.dataobj), template.affine, np.eye(4)).shape
    (233, 197)
    """
    index = np.linalg.inv(affine) @ to_scan @ plane_affine(z_mm)
    place = index[:3, :3], index[:3, 3], (*PLANE_SHAPE, 1)
    return ndi.affine_transform(voxels, *place, output=np.float32, order=order)[..., 0]


@cache
def brain_in_plane(shape: tuple[int, int] = PLANE_SHAPE, z_mm: float = PLANE_Z) -> np.ndarray:
    """Show where the template's brain lies in the plane, on the pixels of a slice that shows it,
    padded to a square where H is W: bool (H, W).

    >>> brain_in_plane((128, 128)).shape, brain_in_plane()[0, 0], brain_in_plane()[98, 98]
    ((128, 128), np.False_, np.True_)
    """
    template = load_brain_template()
    brain = take_plane(np.asarray(template.dataobj) > 0, template.affine, np.eye(4), z_mm) > 0.5
    filled = ndi.binary_fill_holes(brain)
    if shape[0] == shape[1]:
        missing = PLANE_SHAPE[0] - PLANE_SHAPE[1]
        filled = np.pad(filled, ((0, 0), (missing // 2, missing - missing // 2)))
    return ndi.zoom(filled, np.divide(shape, filled.shape), order=0, mode="nearest", grid_mode=True)


def put_back(
    values: np.ndarray,
    to_scan: np.ndarray,
    z_mm: float | Sequence[float],
    shape: tuple[int, int, int],
    affine: np.ndarray,
    order: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Put the values of a plane, or of a stack of planes, on the voxels of a scan that it cuts.

    A voxel is cut where its centre lies within half a slice of the plane: half the largest step in
    z between neighbouring voxels, and at least 0.5 mm. Of thick axial slices that is one slice,
    tilted ones give a band of each. Between the planes of a stack values are interpolated.

    Takes the values (233, 197) at the level `z_mm`, or of a stack (N, 233, 197) at N rising levels;
    `to_scan` (4, 4), mm of MNI152 -> mm of scanner space; shape (I, J, K) and affine (4, 4) of the
    scan; and `order` 1 for linear interpolation, 0 for the nearest value. Returns the voxels
    (I, J, K), float32, 0 elsewhere; and bool (I, J, K), those that the planes cover.

    >>> affine = np.diag([1.0, 1.0, 1.0, 1.0])
    >>> affine[:3, 3] = -98, -134, 23
    >>> voxels, covered = put_back(np.ones(PLANE_SHAPE), np.eye(4), 23.0, (197, 233, 9), affine)
    >>> covered.sum(axis=(0, 1)).tolist(), voxels.max()
    ([45901, 0, 0, 0, 0, 0, 0, 0, 0], np.float32(1.0))
    """
    levels = np.atleast_1d(np.asarray(z_mm, float))
    planes = np.asarray(values, np.float32).reshape(len(levels), *PLANE_SHAPE)
    # voxel -> (row, column, z)
    to_plane = np.linalg.inv(plane_affine(0.0)) @ np.linalg.inv(to_scan) @ affine
    half = max(np.abs(to_plane[2, :3]).max() / 2, THINNEST)
    index = voxels_between(to_plane[2], shape, levels[0] - half, levels[-1] + half)
    row, column, z = map_points(to_plane, index)
    level = np.interp(z, levels, np.arange(len(levels)))
    rows, columns = PLANE_SHAPE
    inside = (row >= -0.5) & (row < rows - 0.5) & (column >= -0.5) & (column < columns - 0.5)
    # level by level of the axis that z rises along the most: memory not written to takes no room
    steep = int(np.abs(to_plane[2, :3]).argmax())
    axes = [steep, *(axis for axis in (2, 1, 0) if axis != steep)]
    voxels, covered = (
        np.zeros([shape[axis] for axis in axes], kind).transpose(np.argsort(axes))
        for kind in (np.float32, bool)
    )
    here = tuple(index[:, inside])
    covered[here] = True
    at = np.stack([level, row, column])[:, inside]
    voxels[here] = ndi.map_coordinates(planes, at, order=order, mode="nearest", prefilter=False)
    return voxels, covered


def voxels_between(
    to_z: np.ndarray, shape: tuple[int, int, int], low: float, high: float
) -> np.ndarray:
    """Indices (3, N) of the voxels whose z lies from `low` to below `high`; `to_z` (4,) gives it.

    Only the slab that can hold them is looked at, along the axis that z rises along the most.
    """
    along = [factor * np.arange(extent) for factor, extent in zip(to_z, shape)]
    steep = int(np.abs(to_z[:3]).argmax())
    others = [z for axis, z in enumerate(along) if axis != steep]
    least, most = (sum(pick(z) for z in others) + to_z[3] for pick in (np.min, np.max))
    margin = abs(to_z[steep])  # more than rounding can move a voxel by
    near = (along[steep] + most >= low - margin) & (along[steep] + least < high + margin)
    part = np.flatnonzero(near)
    start = int(part[0]) if part.size else 0
    along[steep] = along[steep][start : start + part.size]
    i, j, k = along
    z = i[:, None, None] + j[:, None] + k + to_z[3]
    index = np.array(np.nonzero((z >= low) & (z < high)))
    index[steep] += start
    return index
