"""Studies and a screener for the tests of the MONAI Label app."""

import shutil

import nibabel as nib
import pytest
from phantom_contrasts import CONTRASTS, phantom
from servers import label_python

from pathology_screen.screening import Screener


def pytest_collection_modifyitems(items):
    """Skip the tests that start a server where its environment is not named."""
    if label_python() is None:
        reason = (
            "name the interpreter of MONAI Label's environment in PATHOLOGY_SCREEN_LABEL_PYTHON (docs/monai_label.md)"
        )
        for item in items:
            if item.get_closest_marker("label"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shipped() -> Screener:
    """The screener of RA's own weights."""
    return Screener.from_bundle("ra")


@pytest.fixture(scope="session")
def studies(phantoms, tmp_path_factory):
    """Folder of three studies: "healthy", "lesion", and "flair", which is no T1w scan."""
    folder = tmp_path_factory.mktemp("studies")
    for name, path in zip(("healthy", "lesion"), phantoms):
        shutil.copyfile(path, folder / f"{name}.nii.gz")
    voxels, affine = phantom(intensity=CONTRASTS["FLAIR"])
    nib.save(nib.Nifti1Image(voxels, affine), folder / "flair.nii.gz")
    return folder
