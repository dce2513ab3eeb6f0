"""Studies, a bundle and its screener for the tests of the MONAI Label app."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from drawn_slices import save_discs
from servers import RATE, label_python, make_tiny_bundle

from pathology_screen.screening import Screener


def pytest_collection_modifyitems(items):
    """Skip the tests that start a server where its environment is not named."""
    if label_python() is None:
        reason = "name MONAI Label's interpreter in PATHOLOGY_SCREEN_LABEL_PYTHON"
        reason += " (docs/monai_label.md)"
        for item in items:
            if item.get_closest_marker("label"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A small bundle named "tiny", calibrated for `RATE`."""
    names = [f"sub-{person}_T1w" for person in range(4)]
    people = save_discs(tmp_path_factory.mktemp("healthy"), names)
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", people)


@pytest.fixture(scope="session")
def screener(tiny) -> Screener:
    """Of the small bundle."""
    return Screener.from_bundle(tiny, rate=RATE)


@pytest.fixture(scope="session")
def studies(slices, tmp_path_factory) -> Path:
    """Folder of three studies: the slices "healthy" and "lesion", and "broken", which cannot be
    read faithfully."""
    folder = tmp_path_factory.mktemp("studies")
    for name, path in zip(("healthy", "lesion"), slices):
        shutil.copyfile(path, folder / f"{name}.png")
    nothing = np.full((8, 8, 8), np.nan, np.float32)
    nib.save(nib.Nifti1Image(nothing, np.eye(4)), folder / "broken.nii.gz")
    return folder
