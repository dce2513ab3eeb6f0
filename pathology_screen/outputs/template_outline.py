"""The template's brain on a screened slice: where it does not lie on the scan's, the registration
is wrong."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage as ndi

from pathology_screen.result import ScreenedSlice
from pathology_screen.space import load_brain_template, tissue_mask


def template_on_slice(screened: ScreenedSlice) -> np.ndarray | None:
    """Cut the template's brain at the plane and resample it onto a slice.

    Returns:
        (H, W), float32, above 0.5 in the brain; None for a slice that was not registered.
    """
    if screened.mni_affine is None:
        return None
    to_voxel = np.linalg.solve(load_brain_template().affine, screened.mni_affine)
    return ndi.affine_transform(
        _brain(), to_voxel, output_shape=(*screened.image.shape, 1), order=1
    )[..., 0]


@cache
def _brain() -> np.ndarray:
    """1 in the template's brain and its ventricles, 0 elsewhere, (197, 233, 189)."""
    return ndi.binary_fill_holes(tissue_mask(np.asarray(load_brain_template().dataobj))).astype(
        np.float32
    )
