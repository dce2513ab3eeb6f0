"""Every file below a folder is of a scan or passed over, wherever it lies."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from bad_scans import nifti
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from scan_builders import dicom_datasets, head_volume, save, zipped

from pathology_screen.errors import InputError
from pathology_screen.io import bids_labels, discover, read_scan, safe_names, source_id
from pathology_screen.io.find import HEAD, ONE_SLICE, WHOLE, entities_of, folder_of, t1w_images


def series(folder: Path, uid: str, slices: int = 8, name="IM{:04d}".format, **attributes) -> Path:
    return save(dicom_datasets(head_volume(slices), series_uid=uid, **attributes), folder, name)


def two_series(folder: Path, **attributes) -> Path:
    for letter, uid in (("a", "1.2.1"), ("b", "1.2.2")):
        series(folder, uid, name=f"{letter}{{}}".format, **attributes)
    return folder


def spoil(file: Path, whole: Path) -> None:
    file.write_bytes(whole.read_bytes()[:140] + b"\xff" * 200)


def found(root: Path) -> dict[str, tuple[int, str | None]]:
    """Name -> number of files and series."""
    scans = discover(root).scans
    sizes = [(len(scan.files), scan.series_uid) for scan in scans]
    return dict(zip(discover(root).names, sizes, strict=True))


def passed_over(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in discover(root).passed_over]


def codes(root: Path) -> list[tuple[str, str | None, str | None]]:
    """Place, series and code of the refusal of every scan."""
    told = []
    for scan in discover(root).scans:
        place, code = scan.place.relative_to(root).as_posix(), None
        try:
            read_scan(scan.source, series_uid=scan.series_uid)
        except InputError as error:
            code = error.code
        told.append((place, scan.series_uid, code))
    return told


def test_every_scan_of_a_tree_is_one_item(tmp_path):
    first = nifti(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz")
    for name in ("sub-1_anat/sub-1_T1w.nii", "b c/é.nii", "b c/ü.nii", ".hidden/x.nii"):
        nifti(tmp_path / name)
    one = series(tmp_path / "dicom" / "SE1", "1.2.1")
    series(tmp_path / "dicom" / "SE2" / "inner", "1.2.2")
    (tmp_path / "dicom" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "scan.zip").write_bytes(b"no archive")
    (tmp_path / "notes.txt").write_text("no scan")
    (tmp_path / ".sub-2.nii").write_bytes(b"hidden")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert found(tmp_path) == {
        "b_c_": (1, None),
        "b_c_-2": (1, None),
        "dicom_SE1": (8, "1.2.1"),
        "dicom_SE2_inner": (8, "1.2.2"),
        "scan": (1, None),
        "sub-1_anat_sub-1_T1w": (1, None),
        "sub-1_anat_sub-1_T1w-2": (1, None),
    }
    assert passed_over(tmp_path) == ["dicom/DICOMDIR", "loop", "notes.txt"]
    refused = [(place, code) for place, _, code in codes(tmp_path) if code]
    assert refused == [("scan.zip", "unreadable")]
    # one scan is a tree of one; what was asked for by name is one, and will be refused
    assert found(one) == {"SE1": (8, "1.2.1")}
    assert found(one / "IM0000") == {"IM0000": (1, "1.2.1")}
    assert found(first) == {"sub-1_T1w": (1, None)}
    assert found(tmp_path / "notes.txt") == {"notes.txt": (1, None)}
    with pytest.raises(InputError, match="not_found"):
        discover(tmp_path / "nowhere")


# --- what lies beside it takes nothing from a scan ---


def test_scans_in_every_place_and_bad_files_that_cost_themselves_alone(tmp_path):
    """One stray DICOM file at the root of a BIDS tree, and much else."""
    for number in range(2):
        nifti(tmp_path / f"sub-{number}/anat/sub-{number}_T1w.nii.gz")
    series(tmp_path, "1.2.1", slices=1)
    (tmp_path / "empty").write_bytes(b"")
    dicom = series(tmp_path / "dicom", "1.2.2")
    zipped([nifti(dicom / "converted.nii")], dicom / "s.zip")
    spoil(dicom / "damaged", dicom / "IM0000")
    (dicom / "notes.txt").write_text("notes")
    series(dicom / "deeper/and/deeper", "1.2.3")
    told = {place: code for place, _, code in codes(tmp_path)}
    bad = {".": "single_slice", "dicom/damaged": "unreadable", "empty": "unreadable"}
    assert {place: code for place, code in told.items() if code} == bad
    assert len(told) == 2 + 4 + 3 and passed_over(tmp_path) == ["dicom/notes.txt"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_chosen_series_is_read_beside_bad_files(tmp_path, kind):
    root = two_series(tmp_path / "study")
    data = (root / "b3").read_bytes()  # cut behind its series, which costs that
    (root / "b3").write_bytes(data[: data.index(b"1.2.2", 400) + 40])
    assert codes(root) == [(".", "1.2.1", None), (".", "1.2.2", "unreadable")]
    nifti(root / "c.nii")
    (root / "empty").write_bytes(b"")
    spoil(root / "damaged", root / "b4")
    if kind == "zip":
        root = zipped(root.iterdir(), tmp_path / "s.zip")
    assert read_scan(root, series_uid="1.2.1").voxels.shape[2] == 8
    with pytest.raises(InputError, match="unreadable"):
        read_scan(root, series_uid="1.2.2")


def test_an_archive_is_its_series_and_whatever_else_it_holds(tmp_path):
    root, path = two_series(tmp_path / "in"), tmp_path / "s.zip"
    (root / "readme.txt").write_text("x")
    zipped(root.iterdir(), path)
    assert codes(path) == [(".", "1.2.1", None), (".", "1.2.2", None)]
    (root / "empty").write_bytes(b"")
    for extra, refused in (
        (nifti(root / "x.nii"), "several_series"),
        (root / "empty", "unreadable"),
    ):
        zipped([*root.glob("a*"), extra], path)
        assert codes(path) == [(".", "1.2.1", None), (".", None, refused)]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_series_are_told_in_every_encoding_and_behind_something_long(tmp_path, syntax):
    root = two_series(tmp_path / "two", transfer_syntax=syntax)
    assert list(found(root).values()) == [(8, "1.2.1"), (8, "1.2.2")]
    datasets = dicom_datasets(head_volume(), series_uid="1.2.1")
    for dataset in datasets:
        dataset.add_new(0x00091001, "OB", b"\1" * (HEAD + 1000))
    assert found(save(datasets, tmp_path / "long")) == {"long": (8, "1.2.1")}


def test_files_without_a_preamble_or_an_image_and_deflated_ones(tmp_path):
    """The first and last are one refusal a folder."""
    (tmp_path / "old").mkdir()
    for number in range(3):
        (tmp_path / f"old/{number}").write_bytes(b"\x08\0\5\0CS" + bytes(200))
    datasets = dicom_datasets(head_volume())
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    save(datasets, tmp_path / "packed")
    (report,) = dicom_datasets(head_volume(1))
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    save([report], series(tmp_path / "s", "1.2.1"), name="report{}".format)
    assert found(tmp_path) == {"old": (3, None), "packed": (8, None), "s": (8, "1.2.1")}
    assert [code for *_, code in codes(tmp_path)] == ["unreadable", "unsupported_compression", None]
    assert passed_over(tmp_path) == ["s/report0"]


def test_empty_files_and_broken_links_are_refused_where_they_may_be_of_a_series(tmp_path):
    for folder in ("bids", "dicom"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "empty").write_bytes(b"")
        (tmp_path / folder / "lost").symlink_to(tmp_path / "absent")
    (tmp_path / "bids/lost.nii.gz").symlink_to(tmp_path / "absent")
    (tmp_path / "bids/empty.dcm").write_bytes(b"")
    series(tmp_path / "dicom", "1.2.1")
    assert codes(tmp_path) == [
        ("bids/empty.dcm", None, "unreadable"),
        ("bids/lost.nii.gz", None, "not_found"),
        ("dicom", "1.2.1", None),
        ("dicom/empty", None, "unreadable"),
        ("dicom/lost", None, "not_found"),
    ]
    assert passed_over(tmp_path) == ["bids/empty", "bids/lost"]


# --- one series in several folders ---


def test_a_series_in_several_folders_is_one_and_copies_and_patients_are_kept_apart(tmp_path):
    datasets = dicom_datasets(head_volume(), series_uid="1.2.1")
    for number, dataset in enumerate(datasets):
        save([dataset], tmp_path / f"one/study/{number:03}")
    assert found(tmp_path) == {"one_study": (8, "1.2.1")}
    assert codes(tmp_path) == [("one/study", "1.2.1", None)]
    root = tmp_path / "two"
    for folder, copied in ((root, datasets[3:4]), (root / "a", datasets), (root / "b", datasets)):
        save(copied, folder)
    assert list(found(root).values()) == [(1, "1.2.1"), (8, "1.2.1"), (8, "1.2.1")]
    one, first, second = discover(root).scans
    assert first.source_id == second.source_id != one.source_id
    for patient in ("A", "B"):  # under one UID, as some anonymisers write everywhere
        series(tmp_path / "three" / patient, "1.2.1", PatientID=patient)
    assert codes(tmp_path / "three") == [("A", "1.2.1", None), ("B", "1.2.1", None)]
    assert len({scan.source_id for scan in discover(tmp_path / "three").scans}) == 2


# --- identity ---


def test_the_identity_is_of_the_content_wherever_it_lies(tmp_path):
    first, copy = nifti(tmp_path / "a/T1w.nii"), tmp_path / "a/other.nii"
    copy.write_bytes(first.read_bytes())
    nifti(tmp_path / "c/T1w.nii", head_volume() + 1)
    folder = series(tmp_path / "d", "1.2.1")
    ids = [scan.source_id for scan in discover(tmp_path).scans]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    assert ids[0] == discover(first).scans[0].source_id == source_id(str(first))
    assert ids[3] == source_id(folder) == source_id(list(folder.iterdir()))


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "dcm"])
def test_scans_of_the_same_size_and_start_differ_in_their_identity(tmp_path, suffix):
    """Two extracted brains on one grid: the first and last voxels are 0 in both."""
    generator = np.random.default_rng(0)
    paths, ids = [], set()
    for number in range(2):
        content = np.zeros((192, 192, 128), "int16")
        content[64:128, 64:128, 32:96] = generator.integers(0, 1000, (64, 64, 64))
        assert content.nbytes > WHOLE > ONE_SLICE
        paths.append(tmp_path / f"{number}.{suffix}")
        if suffix == "dcm":  # larger than a slice: as a multi-frame object is
            paths[-1].write_bytes(bytes(128) + b"DICM" + content.tobytes())
        else:
            nifti(paths[-1], content)
        ids.add(source_id(paths[-1]))
    assert suffix == "nii.gz" or len({path.stat().st_size for path in paths}) == 1
    assert len(ids) == 2


def test_little_of_a_large_file_is_read(tmp_path):
    with (tmp_path / "large.nii").open("wb") as file:
        file.truncate(2**33)
    before = os.times().user + os.times().system
    assert len(discover(tmp_path).scans) == 1
    assert os.times().user + os.times().system - before < 0.5


# --- names ---


@given(stems=st.lists(st.text("abAB .-_é日", max_size=4)))
def test_names_and_labels_are_safe_and_unique(stems):
    names = safe_names([f"x{stem}.nii" for stem in stems])
    for given_names, pattern in (
        (names, "[A-Za-z0-9_-][A-Za-z0-9._-]*"),
        (bids_labels(stems), "[A-Za-z0-9]+"),
    ):
        assert len({name.casefold() for name in given_names}) == len(stems)
        assert all(re.fullmatch(pattern, name) for name in given_names)


def test_names_and_labels_of_what_has_no_letters():
    assert safe_names(["\u8111.nii.gz", "\u5fc3.NII.gz", "a.dcm"]) == ["_", "_-2", "a"]
    names = ["sub-1_T1w", "1T1w", "1t1W", "subject.2", "é", "sub-", "日"]
    labels = ["1T1w", "1T1wx2", "1t1Wx3", "subject2", "scan", "scanx2", "scanx3"]
    assert bids_labels(names) == labels


def test_file_names_that_are_long_or_no_text(tmp_path):
    """Bytes that are not UTF-8, and more of them than a name is long."""
    for stem in (b"\xff\xfe", b"\xff" * 200, b"\xfe" * 200, b"a" * 200, b"a" * 201):
        (tmp_path / os.fsdecode(stem + b".nii")).write_bytes(stem)
    names = discover(tmp_path).names
    assert len(set(names)) == len({scan.source_id for scan in discover(tmp_path).scans}) == 5
    assert max(map(len, names)) == 120 and all(name.isascii() for name in names)


def test_entities_are_those_of_the_name_where_it_fits_its_folder(tmp_path):
    images = {
        "sub-01/anat/sub-01_T1w.nii": "sub-01",
        "sub-01/anat/sub-01_mine_T1w.nii": None,
        "sub-01/anat/sub-02_T1w.nii": None,
        "sub-01/ses-a/anat/sub-01_T1w.nii": None,  # the folder says a session
        "sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz": "sub-01_ses-a_run-2",
    }
    for name in (*images, "sub-01/anat/.sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {
        path.relative_to(tmp_path).as_posix(): entities_of(path) for path in t1w_images(tmp_path)
    }
    assert found == images and list(found) == list(images)
    for name, entities in images.items():
        assert entities is None or folder_of(entities) == Path(name).parent.as_posix()
    with pytest.raises(ValueError, match="no entities of BIDS"):
        folder_of("01")
