"""Heads and brains of nested ellipsoids, as arrays, loaded scans and files."""

import nibabel as nib
import numpy as np
import pytest
from head_builder import ellipsoids
from monai.data import MetaTensor


@pytest.fixture
def head():
    """Function that makes a head or brain as an array: `head(shape, affine, brain_only=True)`."""
    return ellipsoids


@pytest.fixture
def metatensor():
    """Function that wraps an array (I, J, K) and its affine as a loaded scan: MetaTensor (1, I, J,
    K)."""
    return lambda volume, affine: MetaTensor(volume[None].copy(), affine=np.asarray(affine, float))


@pytest.fixture
def nifti(tmp_path):
    """Function that saves an array and its affine as a NIfTI file, and gives its path."""

    def save(volume, affine, name="scan.nii.gz"):
        nib.save(nib.Nifti1Image(volume, affine), tmp_path / name)
        return str(tmp_path / name)

    return save
