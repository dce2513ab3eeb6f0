"""Folders, scans, datalists, summaries and contact sheets of prepared cohorts."""

import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.preparation import (
    begin,
    contact_sheet,
    display_slice,
    listed,
    read_notes,
    read_sections,
    read_table,
    save_scan,
    summary,
    write_datalist,
)
from pathology_screen.errors import ConfigError, InputError

AFFINE = np.diag([1.0, 2.0, 5.0, 1.0])


def scan(shape=(6, 7, 8), seed=0):
    voxels = np.random.default_rng(seed).uniform(0, 100, shape).astype(np.float32)
    voxels.flat[0] = 0  # black, or the readers take the darkest for the background
    return voxels


@pytest.fixture
def cohort(tmp_path):
    """Datalist of one training volume and three test volumes, one of them with boxes."""
    for name in "abcd":
        save_scan(tmp_path / f"{name}.nii.gz", lambda: (scan(), AFFINE))
    boxes = [
        {"label": "mass", "slice": 5, "box": [1, 2, 3, 4]},
        {"label": "edema", "slice": 2, "box": [0, 0, 1, 1]},
    ]
    sections = {
        "training": [{"image": "a.nii.gz", "subject": "a"}],
        "test": [
            {"image": "b.nii.gz", "subject": "b", "pathology": "healthy"},
            {"image": "c.nii.gz", "subject": "c", "pathology": "mass", "boxes": boxes},
            {"image": "d.nii.gz", "subject": "c", "group": "healthy", "pathology": "edema"},
        ],
    }
    return write_datalist(
        tmp_path, sections, "four", notes={"missing": list("uvwxyz"), "odd": ["a"], "nothing": []}
    )


def test_a_folder_goes_on_with_the_same_options_alone(tmp_path):
    folder = begin(tmp_path / "new" / "out", {"slices": 3, "source": "a"})
    assert begin(folder, {"source": "a", "slices": 3}) == folder
    with pytest.raises(ConfigError, match="other options"):
        begin(folder, {"source": "a", "slices": 4})
    assert [path.name for path in folder.iterdir()] == ["preparation.json"]


def test_a_slice_becomes_a_volume_of_one_slice(tmp_path):
    path = save_scan(tmp_path / "out/a.nii.gz", lambda: (scan((6, 7)), AFFINE), space="mni")
    image = nib.load(path)
    assert image.shape == (6, 7, 1) and np.array_equal(
        np.asarray(image.dataobj)[..., 0], scan((6, 7))
    )
    assert image.header["sform_code"] == image.header["qform_code"] == 4
    assert np.array_equal(image.affine, AFFINE) and image.header.get_xyzt_units()[0] == "mm"


def test_a_scan_that_is_there_is_not_made_again(tmp_path):
    path = save_scan(tmp_path / "a.nii.gz", lambda: (scan(), AFFINE))

    def make():
        raise AssertionError

    assert save_scan(path, make) == path


@pytest.mark.parametrize(
    ("voxels", "affine", "code"),
    [
        (np.zeros((6, 7, 8), np.float32), AFFINE, "constant_image"),
        (np.full((6, 7, 8), np.nan, np.float32), AFFINE, "not_finite"),
        (scan(), np.diag([100.0, 1, 1, 1]), "voxel_size"),
    ],
)
def test_what_the_readers_refuse_is_not_written(tmp_path, voxels, affine, code):
    with pytest.raises(InputError, match=r"scan-7\.nii\.gz") as refusal:
        save_scan(tmp_path / "scan-7.nii.gz", lambda: (voxels, affine))
    assert refusal.value.code == code
    assert not list(tmp_path.iterdir())


def test_a_datalist_is_read_back(cohort):
    assert [item["subject"] for item in load_datalist(cohort, "test")] == ["b", "c", "c"]
    assert {name: len(items) for name, items in read_sections(cohort).items()} == {
        "training": 1,
        "test": 3,
    }
    assert read_notes(cohort) == {"missing": list("uvwxyz"), "odd": ["a"]}
    content = json.loads(cohort.read_text())
    assert content["description"] == "four" and content["modality"] == {"0": "T1w"}


@pytest.mark.parametrize(
    "items",
    [
        {
            "training": [{"image": "a.nii.gz", "subject": "b"}],
            "test": [{"image": "b.nii.gz", "subject": "b"}],
        },
        {"training": [{"image": "none.nii.gz", "subject": "a"}]},
        {"training": [{"image": "a.nii.gz"}, {"image": "a.nii.gz"}]},
    ],
)
def test_a_datalist_that_would_be_refused_does_not_take_the_place_of_a_good_one(cohort, items):
    before = cohort.read_text()
    with pytest.raises(ConfigError):
        write_datalist(cohort.parent, items, "wrong")
    assert cohort.read_text() == before
    assert not [path for path in cohort.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("text", ["{", "3", None])
def test_what_is_no_datalist_has_no_sections(tmp_path, text):
    path = tmp_path / "datalist.json"
    if text:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"datalist\.json"):
        read_sections(path)


def test_the_summary_counts_by_section_and_group(cohort):
    table, notes = summary(cohort).splitlines()[:4], summary(cohort).splitlines()[4:]
    assert [line.split() for line in table] == [
        ["section", "group", "images", "subjects", "boxes"],
        ["training", "healthy", "1", "1", "0"],
        ["test", "healthy", "2", "2", "0"],
        ["test", "mass", "1", "1", "2"],
    ]
    assert len({len(line) for line in table}) == 1
    assert notes == ["missing: 6 (u, v, w, x, y, ...)", "odd: 1 (a)"]


def test_the_contact_sheet_has_a_row_for_each_group(cohort):
    sheet = contact_sheet(cohort)
    assert sheet == cohort.with_name("contact_sheet.png")
    picture = imread(sheet)[..., :3]
    assert picture.shape[1] == 1600 and picture.shape[0] == 3 * 260
    rows = picture.reshape(3, 260, 1600, 3)
    grey = np.ptp(rows, axis=-1) < 0.01
    assert all((row_grey & (row[..., 0] > 0.3)).any() for row, row_grey in zip(rows, grey))
    coloured = (np.ptp(rows, axis=-1) > 0.3) & (
        rows[..., 2] > rows[..., 0] + 0.2
    )  # blue: the frame of a box
    assert [bool(row.any()) for row in coloured] == [False, False, True]


def test_an_empty_cohort_has_no_contact_sheet(tmp_path):
    with pytest.raises(ConfigError, match="no scan to draw"):
        contact_sheet(write_datalist(tmp_path, {"training": []}, "empty"))
    assert not (tmp_path / "contact_sheet.png").exists()


def test_the_slice_of_the_largest_box_is_shown(cohort):
    image, pixel, boxes = display_slice(load_datalist(cohort, "test")[1])
    assert image.shape == (7, 6) and pixel.tolist() == [2, 1]
    assert np.array_equal(
        image, scan()[::-1, ::-1, 5].T
    )  # stored RAS, shown with anterior up and right on the left
    assert boxes == [("mass", [6 - 1 - 3 - 0.5, 7 - 2 - 4 - 0.5, 3, 4])]


def test_without_a_box_the_middle_of_a_volume_is_shown(cohort):
    image, _, boxes = display_slice(load_datalist(cohort, "training")[0])
    assert np.array_equal(image, scan()[::-1, ::-1, 4].T) and boxes == []


def test_a_single_slice_is_shown_as_it_is(tmp_path):
    """Rows to posterior; columns to the patient's right in the file, and to the left in the
    picture."""
    picture = scan((6, 7)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "slice.png")
    item = {"image": tmp_path / "slice.png", "axial_slice": True, "axes": "PRS", "pixel_mm": 2.0}
    box = {"label": "mass", "slice": 0, "box": [1, 2, 3, 4]}  # rows 1 to 3, columns 2 to 5
    image, pixel, boxes = display_slice(item | {"boxes": [box]})
    assert np.array_equal(image, picture[:, ::-1]) and pixel.tolist() == [2, 2]
    assert boxes == [("mass", [7 - 2 - 4 - 0.5, 0.5, 4, 3])]


@given(
    st.permutations([("R", "L"), ("A", "P")]),
    st.lists(st.integers(0, 1), min_size=3, max_size=3),
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 7)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_a_box_frames_the_same_voxels_in_every_orientation(
    tmp_path_factory, axes, flips, corner, size
):
    """The slice lies along the last axis, as in every datalist."""
    codes = [pair[flip] for pair, flip in zip([*axes, ("S", "I")], flips)]
    x, y, k = corner
    voxels = np.zeros((6, 7, 8), np.float32)
    voxels[x : x + size[0], y : y + size[1], k] = 1
    turn = ornt_transform(axcodes2ornt(codes), io_orientation(np.eye(4)))
    stored = nib.Nifti1Image(voxels, np.eye(4) @ nib.orientations.inv_ornt_aff(turn, voxels.shape))
    assert nib.aff2axcodes(stored.affine) != () and io_orientation(stored.affine)[2, 0] == 2
    path = tmp_path_factory.mktemp("turned") / "scan.nii.gz"
    save_scan(path, lambda: (voxels, stored.affine))
    item = {"image": path, "boxes": [{"label": "mass", "slice": k, "box": [x, y, *size]}]}
    image, _, [(_, (column, row, width, height))] = display_slice(item)
    rows, columns = np.nonzero(image)
    assert (column + 0.5, row + 0.5) == (columns.min(), rows.min())
    assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_the_sheet_of_the_phantom_frames_its_lesions(phantom):
    for item in load_datalist(phantom, "test"):
        image, _, boxes = display_slice(item)
        mask, _, _ = (
            display_slice({**item, "image": item["label"]}) if boxes else (None, None, None)
        )
        for _, (column, row, width, height) in boxes:
            inside = mask[round(row + 0.5) :, round(column + 0.5) :][
                : round(height), : round(width)
            ]
            assert inside.any(0).all() and inside.any(1).all() and image.shape == mask.shape


def test_tables(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("\ufefffile,slice\na,3\n".encode())  # as a spreadsheet writes it
    assert read_table(path, ("file", "slice")) == [{"file": "a", "slice": "3"}]
    with pytest.raises(ConfigError, match=r"table\.csv has no column box, label"):
        read_table(path, ("file", "label", "box"))
    with pytest.raises(ConfigError, match="does not exist"):
        listed("none.csv")
