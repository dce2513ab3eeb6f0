"""What a person checks a cohort by: the counts, and pictures whose orientation is known and whose
boxes frame what they name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.contact_sheet import contact_sheet, display_slice, summary
from pathology_screen.cohorts.datalist import write_datalist
from pathology_screen.cohorts.preparation import save_image
from pathology_screen.errors import ConfigError

SCAN = np.random.default_rng(0).uniform(0, 100, (6, 7, 8)).astype(np.float32)
SCAN.flat[0] = 0  # black, or the readers take the darkest for the background


@pytest.fixture
def cohort(tmp_path):
    """Datalist of one training volume and three test volumes, one of them with boxes."""
    for name in "abcd":
        save_image(SCAN, np.diag([1.0, 2.0, 5.0, 1.0]), tmp_path / f"{name}.nii.gz")
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
    notes = {"missing": list("uvwxyz"), "odd": ["a"]}
    return write_datalist(tmp_path, sections, "four", notes=notes)


def test_the_summary_counts_by_section_and_group(cohort):
    assert summary(cohort).splitlines() == [
        "section   group    images  subjects  boxes",
        "training  healthy       1         1      0",
        "test      healthy       2         2      0",
        "test      mass          1         1      2",
        "missing: 6 (u, v, w, x, y, ...)",
        "odd: 1 (a)",
    ]


def test_the_contact_sheet_has_a_row_for_each_group(cohort, tmp_path):
    sheet = contact_sheet(cohort)
    assert sheet == cohort.with_name("contact_sheet.png")
    rows = imread(sheet)[..., :3].reshape(3, 260, 1600, 3)
    spread = np.ptp(rows, axis=-1)
    assert ((spread < 0.01) & (rows[..., 0] > 0.3)).any((1, 2)).all()
    blue = (spread > 0.3) & (rows[..., 2] > rows[..., 0] + 0.2)  # the frame of a box
    assert blue.any((1, 2)).tolist() == [False, False, True]
    with pytest.raises(ConfigError, match="no scan to draw"):
        contact_sheet(write_datalist(tmp_path / "empty", {"training": []}, "empty"))
    assert not (tmp_path / "empty/contact_sheet.png").exists()


def test_the_slice_of_the_largest_box_or_the_middle_is_shown(cohort):
    """Stored RAS, shown with anterior up and right on the left."""
    image, pixel, boxes = display_slice(load_datalist(cohort, "test")[1])
    assert np.array_equal(image, SCAN[::-1, ::-1, 5].T) and pixel.tolist() == [2, 1]
    assert boxes == [("mass", [6 - 1 - 3 - 0.5, 7 - 2 - 4 - 0.5, 3, 4])]
    image, _, boxes = display_slice(load_datalist(cohort, "training")[0])
    assert np.array_equal(image, SCAN[::-1, ::-1, 4].T) and boxes == []


def test_a_single_slice_is_shown_as_it_is(tmp_path):
    """Rows to posterior; columns to the right in the file, to the left in the picture."""
    picture = SCAN[..., 0].astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "slice.png")
    item = {"image": tmp_path / "slice.png", "axial_slice": True, "axes": "PRS", "pixel_mm": 2.0}
    box = {"label": "mass", "slice": 0, "box": [1, 2, 3, 4]}  # rows 1 to 3, columns 2 to 5
    image, pixel, boxes = display_slice(item | {"boxes": [box]})
    assert np.array_equal(image, picture[:, ::-1]) and pixel.tolist() == [2, 2]
    assert boxes == [("mass", [7 - 2 - 4 - 0.5, 0.5, 4, 3])]


@settings(deadline=None)
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
    path = tmp_path_factory.mktemp("turned") / "scan.nii.gz"
    save_image(voxels, inv_ornt_aff(turn, voxels.shape), path)
    item = {"image": path, "boxes": [{"label": "mass", "slice": k, "box": [x, y, *size]}]}
    image, _, [(_, (column, row, width, height))] = display_slice(item)
    rows, columns = np.nonzero(image)
    assert (column + 0.5, row + 0.5) == (columns.min(), rows.min())
    assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
