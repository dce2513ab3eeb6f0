"""Files for the tests of transforms."""

import nibabel as nib
import pytest


@pytest.fixture
def nifti(tmp_path):
    """Function that saves an array and its affine as a NIfTI file, and gives its path."""

    def save(volume, affine, name="scan.nii.gz"):
        nib.save(nib.Nifti1Image(volume, affine), tmp_path / name)
        return str(tmp_path / name)

    return save
