"""Every file below a folder is of a scan or passed over, wherever it lies."""

import os
import re
import string
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from scan_builders import dicom_datasets, head_volume, save

from pathology_screen.errors import InputError
from pathology_screen.io import bids_labels, discover, find_scans, read_scan, safe_names, source_id
from pathology_screen.io.find import HEAD, ONE_SLICE, WHOLE


def nifti(path: Path, voxels=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(head_volume() if voxels is None else voxels, np.eye(4)), path)
    return path


def series(folder: Path, uid: str, slices: int = 8, name="IM{:04d}".format, **attributes) -> Path:
    return save(dicom_datasets(head_volume(slices), series_uid=uid, **attributes), folder, name)


def zipped(path: Path, files) -> Path:
    """An archive of files, or of (name, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for one in files:
            name, content = (one.name, one.read_bytes()) if isinstance(one, Path) else one
            archive.writestr(f"study/{name}", content)
    return path


def cut_behind_its_series(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: data.index(b"1.2.2", 400) + 40])


def damaged(file: Path) -> bytes:
    return file.read_bytes()[:140] + b"\xff" * 200


def found(root: Path) -> dict[str, tuple[int, str | None]]:
    """Name -> number of files and series."""
    discovery = discover(root)
    return {
        name: (len(scan.files), scan.series_uid)
        for name, scan in zip(discovery.names, discovery.scans)
    }


def passed_over(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in discover(root).passed_over]


def code(scan) -> str | None:
    try:
        read_scan(scan.source, series_uid=scan.series_uid)
    except InputError as error:
        return error.code
    return None


@pytest.fixture
def tree(tmp_path):
    nifti(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz")
    for name in ("sub-1_anat/sub-1_T1w.nii", "b c/é.nii", "b c/ü.nii", ".hidden/x.nii"):
        nifti(tmp_path / name)
    series(tmp_path / "dicom" / "SE1", "1.2.1")
    series(tmp_path / "dicom" / "SE2" / "inner", "1.2.2")
    (tmp_path / "dicom" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "scan.zip").write_bytes(b"not opened")
    (tmp_path / "notes.txt").write_text("no scan")
    (tmp_path / ".sub-2.nii").write_bytes(b"hidden")
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


def test_every_scan_of_a_tree_is_one_item(tree):
    assert found(tree) == {
        "b_c_": (1, None),
        "b_c_-2": (1, None),
        "dicom_SE1": (8, "1.2.1"),
        "dicom_SE2_inner": (8, "1.2.2"),
        "scan": (1, None),
        "sub-1_anat_sub-1_T1w": (1, None),
        "sub-1_anat_sub-1_T1w-2": (1, None),
    }
    assert sorted(passed_over(tree)) == ["dicom/DICOMDIR", "loop", "notes.txt"]
    items = find_scans(tree)
    assert items == find_scans(str(tree)) and [item["name"] for item in items] == list(found(tree))
    for item in items:
        if item["name"] != "scan":
            read_scan(item["image"], series_uid=item.get("series_uid"))


def test_one_scan_is_a_tree_of_one(tree):
    assert found(tree / "dicom" / "SE1") == {"SE1": (8, "1.2.1")}
    assert found(tree / "dicom" / "SE1" / "IM0000") == {"IM0000": (1, "1.2.1")}
    assert found(tree / "sub-1_anat" / "sub-1_T1w.nii") == {"sub-1_T1w": (1, None)}
    assert found(tree / "notes.txt") == {"notes.txt": (1, None)}  # and will be refused


def test_nothing_found(tmp_path):
    with pytest.raises(InputError, match="empty"):
        find_scans(tmp_path)
    with pytest.raises(InputError, match="not_found"):
        discover(tmp_path / "nowhere")


# --- what lies beside it takes nothing from a scan ---


def test_nifti_and_zip_among_dicom_are_scans(tmp_path):
    """One stray DICOM file at the root of a BIDS tree, and scans in every place."""
    for number in range(5):
        nifti(tmp_path / f"sub-{number}/anat/sub-{number}_T1w.nii.gz")
    series(tmp_path, "1.2.1", slices=1)
    series(tmp_path / "sub-0/dicom", "1.2.2")
    nifti(tmp_path / "sub-0/dicom/converted.nii")
    series(tmp_path / "sub-0/dicom/deeper/and/deeper", "1.2.3")
    zipped(tmp_path / "sub-0/dicom/s.zip", [tmp_path / "sub-0/dicom/converted.nii"])
    scans = discover(tmp_path).scans
    assert len(scans) == 5 + 1 + 1 + 1 + 1 + 1 and passed_over(tmp_path) == []
    assert sorted(filter(None, map(code, scans))) == ["single_slice"]


def test_a_bad_file_costs_itself_alone(tmp_path):
    for number in range(4):
        series(tmp_path / f"p{number}", f"1.2.{number}")
    series(tmp_path, "1.2.9", slices=1)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "p1/damaged").write_bytes(damaged(tmp_path / "p0/IM0000"))
    (tmp_path / "p2/notes.txt").write_text("notes")
    scans = discover(tmp_path).scans
    codes = {str(scan.place.relative_to(tmp_path)): code(scan) for scan in scans}
    assert codes == {".": "single_slice", "empty": "unreadable", "p1/damaged": "unreadable"} | {
        f"p{number}": None for number in range(4)
    }
    assert passed_over(tmp_path) == ["p2/notes.txt"]


def test_a_file_cut_short_behind_its_series_costs_that_series(tmp_path):
    series(tmp_path, "1.2.1", name="a{}".format)
    series(tmp_path, "1.2.2", name="b{}".format)
    cut_behind_its_series(tmp_path / "b3")
    scans = [(scan.series_uid, len(scan.files), code(scan)) for scan in discover(tmp_path).scans]
    assert scans == [("1.2.1", 8, None), ("1.2.2", 8, "unreadable")]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_chosen_series_is_read_beside_bad_files(tmp_path, kind):
    root = series(tmp_path / "study", "1.2.1", name="a{}".format)
    series(root, "1.2.2", name="b{}".format)
    nifti(root / "c.nii")
    (root / "empty").write_bytes(b"")
    (root / "damaged").write_bytes(damaged(root / "b3"))
    cut_behind_its_series(root / "b3")
    if kind == "zip":
        root = zipped(tmp_path / "s.zip", root.iterdir())
    assert read_scan(root, series_uid="1.2.1").voxels.shape[2] == 8
    with pytest.raises(InputError, match="unreadable"):  # a file of this series is damaged
        read_scan(root, series_uid="1.2.2")


def test_an_archive_is_its_series_and_whatever_else_it_holds(tmp_path):
    series(tmp_path / "in", "1.2.1", name="a{}".format)
    series(tmp_path / "in", "1.2.2", name="b{}".format)
    path = zipped(tmp_path / "s.zip", [*(tmp_path / "in").iterdir(), ("readme.txt", "x")])
    assert [scan.series_uid for scan in discover(path).scans] == ["1.2.1", "1.2.2"]
    whole = nifti(tmp_path / "x.nii").read_bytes()
    for extra, refused in (("x.nii", whole), "several_series"), (("x", b""), "unreadable"):
        zipped(path, [*(tmp_path / "in").glob("a*"), extra])
        scans = [(scan.series_uid, code(scan)) for scan in discover(path).scans]
        assert scans == [("1.2.1", None), (None, refused)]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_series_are_told_in_every_encoding(tmp_path, syntax):
    for number in range(2):
        series(tmp_path, f"1.2.{number}", name=f"{number}-{{}}".format, transfer_syntax=syntax)
    assert list(found(tmp_path).values()) == [(8, "1.2.0"), (8, "1.2.1")]


def test_series_behind_something_long(tmp_path):
    """The series is told where it does not stand in the first part of the file."""
    datasets = dicom_datasets(head_volume(), series_uid="1.2.1")
    for dataset in datasets:
        dataset.add_new(0x00091001, "OB", b"\1" * (HEAD + 1000))
    save(datasets, tmp_path)
    assert list(found(tmp_path).values()) == [(8, "1.2.1")]


def test_files_without_a_preamble_and_deflated_ones_are_one_refusal_a_folder(tmp_path):
    datasets = dicom_datasets(head_volume())
    (tmp_path / "old").mkdir()
    for number in range(3):
        (tmp_path / f"old/{number}").write_bytes(b"\x08\0\5\0CS" + bytes(200))
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    save(datasets, tmp_path / "packed")
    scans = [(len(scan.files), code(scan)) for scan in discover(tmp_path).scans]
    assert scans == [(3, "unreadable"), (8, "unsupported_compression")]


def test_objects_without_an_image_are_passed_over(tmp_path):
    series(tmp_path / "s", "1.2.1")
    (report,) = dicom_datasets(head_volume(1))
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    save([report], tmp_path / "s", name="report{}".format)
    assert list(found(tmp_path).values()) == [(8, "1.2.1")]
    assert passed_over(tmp_path) == ["s/report0"]


def test_empty_files_and_broken_links_are_refused_where_they_may_be_of_a_series(tmp_path):
    for folder in ("bids", "dicom"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "empty").write_bytes(b"")
        (tmp_path / folder / "lost").symlink_to(tmp_path / "absent")
    (tmp_path / "bids/lost.nii.gz").symlink_to(tmp_path / "absent")
    (tmp_path / "bids/empty.dcm").write_bytes(b"")
    series(tmp_path / "dicom", "1.2.1")
    codes = {str(scan.place.relative_to(tmp_path)): code(scan) for scan in discover(tmp_path).scans}
    assert codes == {
        "bids/empty.dcm": "unreadable",
        "bids/lost.nii.gz": "not_found",
        "dicom": None,
        "dicom/empty": "unreadable",
        "dicom/lost": "not_found",
    }
    assert passed_over(tmp_path) == ["bids/empty", "bids/lost"]


# --- one series in several folders ---


def test_a_series_that_lies_in_several_folders_is_one(tmp_path):
    datasets = dicom_datasets(head_volume(), series_uid="1.2.1")
    for number, dataset in enumerate(datasets):
        save([dataset], tmp_path / f"study/{number:03}")
    assert found(tmp_path) == {"study": (8, "1.2.1")}
    (scan,) = discover(tmp_path).scans
    assert code(scan) is None


def test_copies_of_a_series_and_of_one_of_its_slices_are_kept_apart(tmp_path):
    datasets = dicom_datasets(head_volume(), series_uid="1.2.1")
    save(datasets, tmp_path / "a")
    save(datasets, tmp_path / "b")
    save(datasets[3:4], tmp_path)
    assert list(found(tmp_path).values()) == [(1, "1.2.1"), (8, "1.2.1"), (8, "1.2.1")]
    one, first, second = discover(tmp_path).scans
    assert first.source_id == second.source_id != one.source_id


def test_two_patients_under_one_series_uid_are_kept_apart(tmp_path):
    """As an anonymiser makes them that writes the same UID everywhere."""
    for patient in ("A", "B"):
        series(tmp_path / patient, "1.2.1", PatientID=patient)
    scans = discover(tmp_path).scans
    assert [(len(scan.files), code(scan)) for scan in scans] == [(8, None), (8, None)]
    assert scans[0].source_id != scans[1].source_id


# --- identity ---


def test_the_identity_is_of_the_content_wherever_it_lies(tmp_path):
    first = nifti(tmp_path / "a/T1w.nii")
    copy = tmp_path / "b" / "other.nii"
    copy.parent.mkdir()
    copy.write_bytes(first.read_bytes())
    nifti(tmp_path / "c/T1w.nii", head_volume() + 1)
    series(tmp_path / "d", "1.2.1")
    ids = [scan.source_id for scan in discover(tmp_path).scans]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    assert ids[0] == discover(first).scans[0].source_id
    assert source_id(copy) == source_id(str(first)) != source_id(tmp_path / "c/T1w.nii")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "dcm"])
def test_scans_of_the_same_size_and_start_differ_in_their_identity(tmp_path, suffix):
    """Two extracted brains on one grid: the first and last voxels are 0 in both."""
    generator = np.random.default_rng(0)
    voxels, other = np.zeros((2, 192, 192, 128), "int16")
    for one in (voxels, other):
        one[64:128, 64:128, 32:96] = generator.integers(0, 1000, (64, 64, 64))
    assert voxels.nbytes > WHOLE > ONE_SLICE
    paths = []
    for number, content in enumerate((voxels, other)):
        path = tmp_path / f"{number}.{suffix}"
        if suffix == "dcm":  # larger than a slice: as a multi-frame object is
            path.write_bytes(bytes(128) + b"DICM" + content.tobytes())
        else:
            nifti(path, content)
        paths.append(path)
    assert suffix == "nii.gz" or len({path.stat().st_size for path in paths}) == 1
    assert len({source_id(path) for path in paths}) == 2


def test_little_of_a_large_file_is_read(tmp_path):
    path = tmp_path / "large.nii"
    with path.open("wb") as file:
        file.truncate(2**33)
    before = os.times().user + os.times().system
    assert len(discover(tmp_path).scans) == 1
    assert os.times().user + os.times().system - before < 0.5


# --- names ---

STEMS = st.text(string.ascii_letters + " .-_é日", min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(stems=st.lists(STEMS, unique=True, min_size=1))
def test_names_are_safe_and_unique(tmp_path_factory, stems):
    root = tmp_path_factory.mktemp("tree")
    for stem in stems:
        (root / f"x{stem}.nii").write_bytes(b"")
    items = find_scans(root)
    names = [item["name"] for item in items]
    images = {item["image"] for item in items}
    assert len({name.casefold() for name in names}) == len(names) == len(images)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name) for name in names)


def test_file_names_that_are_long_or_no_text(tmp_path):
    """Bytes that are not UTF-8, and more of them than a name is long."""
    for stem in (b"\xff\xfe", b"\xff" * 200, b"\xfe" * 200, b"a" * 200, b"a" * 201):
        (tmp_path / os.fsdecode(stem + b".nii")).write_bytes(stem)
    discovery = discover(tmp_path)
    names = discovery.names
    assert len(set(names)) == 5 and max(map(len, names)) == 120
    assert all(name.isascii() for name in names)
    assert len({scan.source_id for scan in discovery.scans}) == 5


def test_names_without_latin_letters_are_numbered():
    assert safe_names(["\u8111.nii.gz", "\u5fc3.nii.gz", "short.nii"]) == ["_", "_-2", "short"]


def test_labels_are_letters_and_digits_after_the_entity():
    names = ["sub-1_T1w", "1T1w", "1t1W", "subject.2", "é", "sub-", "日"]
    labels = ["1T1w", "1T1wx2", "1t1Wx3", "subject2", "scan", "scanx2", "scanx3"]
    assert bids_labels(names) == labels


@given(names=st.lists(st.text("aA1x2-._é", max_size=4)))
def test_labels_are_unique(names):
    labels = bids_labels(names)
    assert len({label.casefold() for label in labels}) == len(names)
    assert all(re.fullmatch("[A-Za-z0-9]+", label) for label in labels)
