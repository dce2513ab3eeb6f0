"""Damage that nobody thought of: whatever bytes a file holds, it is a Scan or an InputError."""

import shutil
import warnings

import numpy as np
import pytest
from bad_scans import nifti
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from scan_builders import dicom_datasets, head_volume, multiframe, save, zipped

from pathology_screen.errors import InputError
from pathology_screen.io import Scan, read_scan

INTERESTING = [b"\0", b"\xff", b"\x7f\xff", b"\xff\x7f", b"\0\0\0\x80", b"\xff\xff\xff\xff"]
INTERESTING += [b"\xfe\xff\0\xe0", b"SQ", b"UL"]
FORMATS = ["nifti", "nifti.gz", "dicom", "zip"]


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Format -> contents of the files of scans that are read."""
    root = tmp_path_factory.mktemp("whole")
    volume = head_volume(3, 40, 36)
    for name, syntax in (("rle", RLELossless), ("jls", JPEGLSLossless), ("j2k", JPEG2000Lossless)):
        save(dicom_datasets(volume, transfer_syntax=syntax), root / name)
    save(dicom_datasets(volume), root / "explicit")
    save(dicom_datasets(volume, transfer_syntax=ImplicitVRLittleEndian), root / "implicit")
    multiframe(dicom_datasets(volume), root / "multiframe/0")
    folders = [sorted(folder.iterdir()) for folder in sorted(root.iterdir())]
    series = [[file.read_bytes() for file in files] for files in folders]
    nifti(root / "n.nii")
    nifti(root / "n.nii.gz")
    zipped((root / "explicit").iterdir(), root / "z.zip", "a/")
    files = {"nifti": "n.nii", "nifti.gz": "n.nii.gz", "zip": "z.zip"}
    single = {kind: [[(root / name).read_bytes()]] for kind, name in files.items()}
    return {"dicom": series} | single


@st.composite
def damaged(draw, content):
    """A file with some bytes replaced, inserted, repeated or left out."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        reach = min(len(data), draw(st.sampled_from([64, 400, 1500, 1 << 24])))
        at = draw(st.integers(0, max(reach - 1, 0)))
        length = draw(st.sampled_from([0, 1, 2, 4, 8, 100]))
        repeated = st.just(bytes(data[at : at + 50]) * 3)
        new = draw(st.sampled_from(INTERESTING) | st.binary(max_size=8) | repeated)
        data[at : at + length] = new
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data)


def check(data, whole, kind, folder):
    files = list(data.draw(st.sampled_from(whole[kind])))
    files[-1] = data.draw(damaged(files[-1]))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    suffix = {"nifti": ".nii", "nifti.gz": ".nii.gz", "zip": ".zip", "dicom": ""}[kind]
    for number, content in enumerate(files):
        (folder / f"{number}{suffix}").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scan = read_scan(folder if kind == "dicom" else folder / f"0{suffix}")
        except InputError:
            return
    assert isinstance(scan, Scan) and np.isfinite(scan.voxels).all()


OPTIONS = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
    "database": None,
}


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=25, derandomize=True, **OPTIONS)
@given(data=st.data())
def test_any_damage(data, whole, kind, tmp_path):
    check(data, whole, kind, tmp_path / "s")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=3000, **OPTIONS)
@given(data=st.data())
def test_much_damage(data, whole, kind, tmp_path):
    check(data, whole, kind, tmp_path / "s")
