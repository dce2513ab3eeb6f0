"""Correction of the smooth shading by the coils, with ITK's N4 (Tustison et al., TMI 2010)."""

from types import ModuleType

import nibabel as nib
import numpy as np
from scipy import ndimage as ndi

from pathology_screen.errors import ConfigError
from pathology_screen.geometry import coarsen, spacing

WORKING_MM = 4.0
"""Voxels on which the field is fitted; it varies over centimetres."""
FITTINGS, ITERATIONS = 3, 50
"""A fourth, finer fitting follows the tissue: after it, two IXI scans resembled MNI152 less."""


def import_itk() -> ModuleType:
    """Import itk, which is optional, large and slow to import; ConfigError without it."""
    try:
        import itk
    except ImportError as error:
        text = "bias field correction needs ITK: pip install pathology-screen[ixi]"
        raise ConfigError(text) from error
    return itk


def correct_bias_field(voxels: np.ndarray, affine: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Divide a volume by the field that N4 finds in the brain, on one thread.

    Args:
        voxels: (I, J, K) intensities, any orientation.
        affine: (4, 4), voxel index -> RAS+ mm.
        brain: bool (I, J, K), where the field is fitted; elsewhere the nearest value holds.

    Returns:
        (I, J, K), float32, with the mean of the brain unchanged.
    """
    itk = import_itk()
    coarse = coarsen(nib.Nifti1Image(voxels, affine, dtype=np.float32), WORKING_MM)
    share = coarsen(nib.Nifti1Image(brain.astype(np.float32), affine), WORKING_MM)
    seen = np.asarray(coarse.dataobj)
    inside = (np.asarray(share.dataobj) > 0.5) & (seen > 0)
    image, mask = itk.image_from_array(seen), itk.image_from_array(inside.astype(np.uint8))
    for picture in (image, mask):
        picture.SetSpacing(spacing(coarse.affine)[::-1].tolist())  # ITK names the last axis first
    n4 = itk.N4BiasFieldCorrectionImageFilter.New(image, MaskImage=mask)
    n4.SetMaximumNumberOfIterations([ITERATIONS] * FITTINGS)
    n4.SetNumberOfFittingLevels(FITTINGS)
    n4.SetNumberOfWorkUnits(1)
    n4.Update()
    smooth = itk.array_from_image(n4.GetOutput())
    field = np.divide(seen, smooth, where=inside, out=np.ones_like(seen))
    nearest = ndi.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    ratio = np.divide(voxels.shape, seen.shape)
    field = ndi.zoom(field[tuple(nearest)], ratio, order=1, mode="nearest", grid_mode=True)
    corrected = voxels / field
    return (corrected * (voxels[brain].mean() / corrected[brain].mean())).astype(np.float32)
