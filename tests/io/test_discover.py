import re
import string

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_builders import dicom_datasets, head_volume, save

from pathology_screen.errors import InputError
from pathology_screen.io import bids_labels, find_scans, passed_over, read_scan, safe_names


@pytest.fixture
def tree(tmp_path):
    image = nib.Nifti1Image(head_volume(), np.eye(4))
    for name in ("sub-1/anat/sub-1_T1w.nii.gz", "sub-1_anat/sub-1_T1w.nii", "b c/é.nii", "b c/ü.nii", ".hidden/x.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, tmp_path / name)
    save(dicom_datasets(head_volume()), tmp_path / "dicom" / "SE1")
    save(dicom_datasets(head_volume()), tmp_path / "dicom" / "SE2" / "inner")
    (tmp_path / "dicom" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "scan.zip").write_bytes(b"not opened")
    (tmp_path / "notes.txt").write_text("no scan")
    (tmp_path / ".sub-2.nii").write_bytes(b"hidden")
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


def test_every_scan_of_a_tree_is_one_item(tree):
    items = find_scans(tree)
    assert {item["name"]: item["image"].removeprefix(f"{tree}/") for item in items} == {
        "b_c_": "b c/é.nii",
        "b_c_-2": "b c/ü.nii",
        "dicom_SE1": "dicom/SE1",
        "dicom_SE2_inner": "dicom/SE2/inner",
        "scan": "scan.zip",
        "sub-1_anat_sub-1_T1w": "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-1_anat_sub-1_T1w-2": "sub-1_anat/sub-1_T1w.nii",
    }
    assert items == find_scans(str(tree))
    for item in items:
        if not item["image"].endswith(".zip"):
            read_scan(item["image"])


def test_one_scan_is_a_tree_of_one(tree):
    assert find_scans(tree / "dicom" / "SE1")[0]["name"] == "SE1"
    assert find_scans(tree / "sub-1_anat" / "sub-1_T1w.nii")[0]["name"] == "sub-1_T1w"


def test_a_folder_with_dicom_files_is_read_with_what_lies_below(tmp_path):
    save(dicom_datasets(head_volume()), tmp_path / "study")
    save(dicom_datasets(head_volume()), tmp_path / "study" / "second")
    assert [item["name"] for item in find_scans(tmp_path)] == ["study"]
    with pytest.raises(InputError, match="several_series"):  # so the second is not lost silently
        read_scan(tmp_path / "study")


def test_nothing_found_is_refused(tmp_path):
    with pytest.raises(InputError, match="empty"):
        find_scans(tmp_path)
    with pytest.raises(InputError, match="not_found"):
        find_scans(tmp_path / "nowhere")


@settings(max_examples=30, deadline=None)
@given(stems=st.lists(st.text(string.ascii_letters + " .-_é日", min_size=1, max_size=4), unique=True, min_size=1))
def test_names_are_safe_and_unique(tmp_path_factory, stems):
    root = tmp_path_factory.mktemp("tree")
    for stem in stems:
        (root / f"x{stem}.nii").write_bytes(b"")
    items = find_scans(root)
    names = [item["name"] for item in items]
    assert len({name.casefold() for name in names}) == len(names) == len({item["image"] for item in items})
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name) for name in names)


def test_dicom_without_preamble_is_listed_so_that_it_is_refused(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "image").write_bytes(b"\x08\0\5\0CS" + bytes(200))
    assert [item["name"] for item in find_scans(tmp_path)] == ["old"]


def test_long_names_are_cut_and_stay_unique():
    names = safe_names(["a" * 300 + "/scan.nii.gz", "a" * 300 + "/other.nii.gz", "short.nii"])
    assert len(set(names)) == 3 and max(map(len, names)) == 120 and names[2] == "short"


def test_names_without_latin_letters_are_numbered():
    assert safe_names(["\u8111.nii.gz", "\u5fc3.nii.gz"]) == ["_", "_-2"]


def test_labels_are_letters_and_digits_after_the_entity():
    names = ["sub-1_T1w", "1T1w", "1t1W", "subject.2", "é", "sub-", "日"]
    assert bids_labels(names) == ["1T1w", "1T1wx2", "1t1Wx3", "subject2", "scan", "scanx2", "scanx3"]


@given(names=st.lists(st.text("aA1x2-._é", max_size=4)))
def test_labels_are_unique(names):
    labels = bids_labels(names)
    assert len({label.casefold() for label in labels}) == len(names)
    assert all(re.fullmatch("[A-Za-z0-9]+", label) for label in labels)


def test_what_belongs_to_no_scan_is_listed(tmp_path):
    for name in ("a/T1w.nii.gz", "a/T1w.json", "b/notes.txt", "c/scan.zip", "d/.hidden/x", "d/.cache"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom/1").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "dicom/report.pdf").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    found = [path.relative_to(tmp_path).as_posix() for path in passed_over(tmp_path)]
    assert sorted(found) == ["a/T1w.json", "b/notes.txt", "link"]
    assert passed_over(tmp_path / "a/T1w.nii.gz") == []
