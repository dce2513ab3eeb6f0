"""Each way in which the readers refuse a scan, from a file that really is so."""

import shutil
import traceback
from pathlib import Path

import numpy as np
import pytest
from bad_scans import (
    BAD_ARCHIVES,
    BAD_DICOM_FILES,
    BAD_NIFTI,
    BAD_NIFTI_FILES,
    HEADER_PATCHES,
    NO_SCANS,
    PYDICOM_FILES,
    dicomdir,
    nested,
    nifti,
    patched_nifti,
    refused_scans,
)
from limits import bounded, cheap
from pydicom.uid import ImplicitVRLittleEndian
from scan_builders import CORONAL, dicom_datasets, head_volume, save

from pathology_screen.errors import REFUSALS, InputError
from pathology_screen.io import discover, read_scan

CASES = refused_scans() | {f"path, {name}": case for name, case in NO_SCANS.items()}
LARGE = ("pixels of two gigabytes", "file of three gigabytes", "file of 80 megabytes for one slice")
BOMBS = {
    **{name: BAD_DICOM_FILES[name] for name in LARGE},
    "zip": BAD_ARCHIVES["bomb"],
    "zip that lies": BAD_ARCHIVES["member that is larger than it says"],
    "nii.gz": BAD_NIFTI_FILES["bomb"],
}


def refusal(path, **options) -> InputError:
    """The refusal of a scan, after checking that neither it nor its traceback repeats the patient's
    data or a path."""
    with pytest.raises(InputError) as caught:
        read_scan(path, **options)
    text = "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in text and str(Path(path).parent) not in str(caught.value)
    assert caught.value.code in REFUSALS
    return caught.value


# --- DICOM ---


@pytest.mark.parametrize("name", CASES)
def test_every_case(name, tmp_path):
    make, code = CASES[name]
    folder = tmp_path / "CANARY"
    folder.mkdir()
    path = make(folder)
    with bounded():
        assert refusal(path).code == code


def test_a_slice_cut_short_by_a_scanner():
    assert refusal(PYDICOM_FILES / "MR_truncated.dcm", axial_slice=True).code == "unreadable"


def test_the_series_that_is_spoiled_was_read(tmp_path):
    datasets = dicom_datasets(head_volume(), transfer_syntax=ImplicitVRLittleEndian)
    assert read_scan(save(datasets, tmp_path)).voxels.shape == (16, 20, 8)


def test_the_file_that_is_damaged_is_told_by_its_place(tmp_path):
    folder = save(dicom_datasets(head_volume()), tmp_path / "s", name="CANARY{}.dcm".format)
    for damage, content in {"pixels": -300, "header": 700, "preamble": 133}.items():
        shutil.copytree(folder, tmp_path / damage)
        file = tmp_path / damage / "CANARY4.dcm"
        file.write_bytes(file.read_bytes()[:content])
        assert "file 5 of 8 in order of names" in str(refusal(tmp_path / damage))
    (folder / "CANARY4.dcm").write_bytes(b"")  # as a copy that failed leaves it
    assert "file 5 of 8 in order of names: the file is empty" in str(refusal(folder))
    with pytest.raises(InputError, match=r"not_found.*: file 2 of 2 in order of names$"):
        read_scan([folder / "CANARY5.dcm", folder / "CANARY99.dcm"])


def test_tilt_between_the_patients_axes(tmp_path):
    def series(degrees):
        angle = np.radians(degrees)
        orientation = np.round((1, 0, 0, 0, np.cos(angle), np.sin(angle)), 9)
        return save(dicom_datasets(head_volume(), orientation=orientation), tmp_path / str(degrees))

    assert refusal(series(31)).code == "oblique"
    read_scan(series(29))


def test_single_slice_that_is_not_axial(tmp_path):
    folder = save(dicom_datasets(head_volume(1), orientation=CORONAL), tmp_path / "CANARY")
    assert refusal(folder, axial_slice=True).code == "oblique"


def test_cut_at_any_byte_is_refused(tmp_path):
    folder = save(dicom_datasets(head_volume(2)), tmp_path / "CANARY")
    file = folder / "IM0001"
    content = file.read_bytes()
    for length in [*range(140, len(content) - 640, 23), len(content) - 640, len(content) - 2]:
        file.write_bytes(content[:length])
        refusal(folder)


def test_sequences_that_are_not_deep_are_read(tmp_path):
    assert read_scan(nested(5)(tmp_path)).voxels.shape == (16, 20, 2)


# --- NIfTI ---


@pytest.mark.parametrize("name", [*BAD_NIFTI, *HEADER_PATCHES])
def test_nifti_that_is_not_packed(name, tmp_path):
    """As it is in `CASES`, but for the packing."""
    (tmp_path / "CANARY").mkdir()
    path = tmp_path / "CANARY/scan.nii"
    if name in BAD_NIFTI:
        arguments, code = BAD_NIFTI[name]
        nifti(path, **arguments)
    else:
        *change, code = HEADER_PATCHES[name]
        patched_nifti(path, *change)
    assert refusal(path).code == code


def test_nifti_slice_declared_axial_that_is_not(tmp_path):
    path = nifti(tmp_path / "scan.nii", head_volume()[:1])
    assert refusal(path, axial_slice=True).code == "oblique"


# --- paths, folders and archives ---


def test_lists_of_files(tmp_path):
    files = sorted(save(dicom_datasets(head_volume()), tmp_path / "CANARY").iterdir())
    read_scan(files)
    with pytest.raises(InputError, match="not_found"):
        read_scan([*files, tmp_path / "IM9999"])
    with pytest.raises(InputError, match="empty"):
        read_scan([])


def test_dicomdir_beside_what_is_no_scan(tmp_path):
    (dicomdir(tmp_path) / "notes.txt").write_text("no scan")
    assert refusal(tmp_path).code == "empty"


def test_a_damaged_member_is_told_also_where_a_series_is_chosen(tmp_path):
    """The rest of its series would be a scan with fewer slices."""
    path = BAD_ARCHIVES["damaged member"][0](tmp_path / "CANARY")
    uids = {scan.series_uid for scan in discover(path).scans}
    for uid in (*uids - {None}, "1.2.9"):
        found = refusal(path, series_uid=uid)
        assert found.code == "unreadable" and "file 1 of 8 in order of names" in str(found)


@pytest.mark.parametrize(("make", "code"), BOMBS.values(), ids=BOMBS)
def test_bombs_cost_little(tmp_path, make, code):
    folder = tmp_path / "CANARY"
    folder.mkdir()
    path = make(folder)
    with cheap():
        assert refusal(path).code == code
