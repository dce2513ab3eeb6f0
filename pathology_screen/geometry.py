"""Where an image lies in the patient, and its voxels."""

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import io_orientation
from scipy import ndimage as ndi

DISPLAY_AXES = "PLS"
"""Axis codes of the network grid: rows run to posterior, columns to the patient's left."""


def axial_orientation(affine: np.ndarray) -> tuple[int, int]:
    """Return the array axis (0, 1 or 2) along which axial slices are stacked, by an affine (4, 4)
    from voxels to mm in RAS+; and +1 where its index rises to superior, -1 where to inferior."""
    orientation = io_orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    return axis, int(orientation[axis, 1])


def spacing(affine: np.ndarray) -> np.ndarray:
    """Return the distance in mm between neighbouring voxels along each array axis, shape (3,)."""
    return np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)


def map_points(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply an affine (4, 4) or (3, 4) to points (3, N), with equal bits at any threads.

    A matrix product would share its work among threads, and round by where it is cut.
    """
    matrix = np.asarray(affine, float)[:3]
    return (matrix[:, :3, None] * points).sum(axis=1) + matrix[:, 3:]


def map_grid(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Apply an affine (4, 4) to all indices of a grid (I, J, K): (3, I, J, K), with the same bits
    at any number of threads."""
    i, j, k = (affine[:3, axis, None] * np.arange(extent) for axis, extent in enumerate(shape))
    k = k + affine[:3, 3:]
    return (i[:, :, None] + j[:, None])[..., None] + k[:, None, None]


def box_around(mask: np.ndarray, margin: int | np.ndarray = 1) -> tuple[slice, ...]:
    """Return the box of a mask, bool (I, J, K), and a margin of so many voxels, as far as there are
    some; the whole volume where nothing is in the mask."""
    box = next(iter(ndi.find_objects(mask.view(np.uint8))), None)
    if box is None:
        return tuple(slice(0, extent) for extent in mask.shape)
    more = np.broadcast_to(margin, mask.ndim)
    return tuple(slice(max(part.start - m, 0), part.stop + m) for part, m in zip(box, more))


def crop(
    voxels: np.ndarray, affine: np.ndarray, box: tuple[slice, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a volume (I, J, K) with its affine (4, 4) to a box; the voxels are not copied."""
    moved = np.array(affine, float)
    moved[:3, 3] = apply_affine(moved, [side.start for side in box])
    return voxels[box], moved


def coarsen(image: nib.Nifti1Image, millimetres: float) -> nib.Nifti1Image:
    """Smooth an image (I, J, K) in any orientation and give it larger voxels along its own axes,
    float32, of nearly this size: they fill the same field of view.

    An axis whose voxels are as large is left as it is. The width of the smoothing at half its
    height adds what the voxels lack.
    """
    voxels, size = np.asarray(image.dataobj, np.float32), spacing(image.affine)
    width = np.sqrt(np.maximum(millimetres**2 - size**2, 0)) / size
    smooth = ndi.gaussian_filter(voxels, width / np.sqrt(8 * np.log(2)))
    factors = np.minimum(size / millimetres, 1)
    coarse = ndi.zoom(smooth, factors, order=1, mode="nearest", grid_mode=True)
    ratio = np.divide(voxels.shape, coarse.shape)
    to_fine = np.diag([*ratio, 1.0])
    to_fine[:3, 3] = (ratio - 1) / 2
    return nib.Nifti1Image(coarse, image.affine @ to_fine)
