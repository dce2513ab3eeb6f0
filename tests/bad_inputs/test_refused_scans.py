"""Each way in which the readers refuse a scan, from a file that really is so."""

import shutil

import pytest
from bad_scans import ARCHIVES, NO_SCANS, PYDICOM_FILES, REFUSED, dicomdir, nested, nifti, series
from limits import bounded, cheap, refusal
from scan_builders import CORONAL, dicom_datasets, head_volume, save

from pathology_screen.errors import InputError
from pathology_screen.io import discover, read_scan

CASES = REFUSED | {f"path, {name}": case for name, case in NO_SCANS.items()}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "CANARY").mkdir()
    return tmp_path / "CANARY"


@pytest.mark.parametrize("name", CASES)
def test_every_case(name, folder):
    """What pretends to be large costs little."""
    make, code = CASES[name]
    path = make(folder)
    with cheap() if "bytes" in name or "larger" in name else bounded():
        assert refusal(path).code == code


def test_what_is_spoiled_in_the_cases_was_read(folder):
    assert read_scan(series(lambda datasets: None)(folder)).voxels.shape == (16, 20, 8)
    assert read_scan(nested(5)(folder / "nested")).voxels.shape == (64, 64, 2)


def test_one_slice_has_to_be_whole_and_axial(folder):
    cut = PYDICOM_FILES / "MR_truncated.dcm"
    coronal = save(dicom_datasets(head_volume(1), orientation=CORONAL), folder / "s")
    sagittal = nifti(folder / "other/scan.nii", head_volume()[:1])
    codes = {cut: "unreadable", coronal: "oblique", sagittal: "oblique"}
    assert {path: refusal(path, axial_slice=True).code for path in codes} == codes


def test_the_file_that_is_damaged_is_told_by_its_place(tmp_path):
    folder = save(dicom_datasets(head_volume()), tmp_path / "s", name="CANARY{}.dcm".format)
    for damage, content in {"pixels": -300, "header": 700, "preamble": 133}.items():
        shutil.copytree(folder, tmp_path / damage)
        file = tmp_path / damage / "CANARY4.dcm"
        file.write_bytes(file.read_bytes()[:content])
        assert "file 5 of 8 in order of names" in str(refusal(tmp_path / damage))
    (folder / "CANARY4.dcm").write_bytes(b"")  # as a copy that failed leaves it
    assert "file 5 of 8 in order of names: the file is empty" in str(refusal(folder))
    (folder / "CANARY4.dcm").unlink()
    (folder / "CANARY4.dcm").symlink_to(folder / ".git/annex/objects/absent")
    assert "file 5 of 8 in order of names" in str(refusal(folder))
    with pytest.raises(InputError, match=r"not_found.*: file 2 of 2 in order of names$"):
        read_scan([folder / "CANARY5.dcm", folder / "CANARY99.dcm"])


def test_cut_at_any_byte_is_refused(folder):
    file = save(dicom_datasets(head_volume(2)), folder) / "IM0001"
    content = file.read_bytes()
    for length in [*range(140, len(content) - 640, 23), len(content) - 640, len(content) - 2]:
        file.write_bytes(content[:length])
        refusal(folder)


def test_lists_of_files(folder):
    files = sorted(save(dicom_datasets(head_volume()), folder).iterdir())
    read_scan(files)
    for wrong, code in (([*files, folder / "IM9999"], "not_found"), ([], "empty")):
        with pytest.raises(InputError, match=code):
            read_scan(wrong)


def test_dicomdir_beside_what_is_no_scan(tmp_path):
    (dicomdir(tmp_path) / "notes.txt").write_text("no scan")
    assert refusal(tmp_path).code == "empty"


def test_a_damaged_member_is_told_also_where_a_series_is_chosen(folder):
    """The rest of its series would be a scan with fewer slices."""
    path = ARCHIVES["damaged member"][0](folder)
    uids = {scan.series_uid for scan in discover(path).scans}
    for uid in (*uids - {None}, "1.2.9"):
        found = refusal(path, series_uid=uid)
        assert found.code == "unreadable" and "file 1 of 8 in order of names" in str(found)
