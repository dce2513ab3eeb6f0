"""Scans for the tests of runs."""

from pathlib import Path

import nibabel as nib
import pytest

from pathology_screen.io import read_scan


@pytest.fixture(scope="session")
def phantoms(slices, tmp_path_factory) -> list[Path]:
    """A healthy slice and one with a lesion, as NIfTI files."""
    paths = []
    for path in slices:
        scan = read_scan(path)
        paths.append(tmp_path_factory.mktemp("phantoms") / f"{path.stem}.nii.gz")
        nib.save(nib.Nifti1Image(scan.voxels, scan.affine), paths[-1])
    return paths


@pytest.fixture
def tree(phantoms, tmp_path) -> Path:
    """Four good scans, and one that is damaged."""
    root = tmp_path / "studies"
    for number in range(5):
        data = phantoms[number % 2].read_bytes()
        (root / f"s{number}").mkdir(parents=True)
        (root / f"s{number}/T1w.nii.gz").write_bytes(data if number < 4 else data[:2000])
    return root
