"""The fastMRI+ cohort: orientation, boxes, the paper's split, and what is missing or damaged."""

import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from fastmri_builder import (
    HEADER,
    ROWS,
    SLICES,
    STATED,
    WIDTH,
    pictures,
    write_annotations,
    write_dicoms,
    write_hdf5,
)

from pathology_screen.bundles import read_settings
from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.fastmri import (
    NOMINAL_MM,
    prepare_fastmri,
    read_annotations,
    stated_size,
)
from pathology_screen.cohorts.preparation import listed, summary
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.io import read_scan
from pathology_screen.predictor import build_preprocessing
from pathology_screen.transforms.annotations import AnnotatedSliced

ENTRIES = listed("fastmri.csv")
NORMAL, CHECKED, HELD_OUT = (
    next(row["file"] for row in ENTRIES if row["section"] == section)
    for section in ("training", "validation", "test")
)
LOCAL = "file_brain_AXT1_202_2020486"  # slice 2
GLOBAL = "file_brain_AXT1_202_2020044"  # slice 3
BOTH = "file_brain_AXT1_202_2020570"  # artefact and edema, slice 3
FINDING = (LOCAL, 2, 1, 2, 4, 3, "Edema")  # columns 1 to 4, rows 2 to 4


@pytest.fixture
def prepare(tmp_path):
    """Prepare a cohort of a few files with these annotations; give its datalist."""

    def prepare(files=(NORMAL, LOCAL), rows=(FINDING,), header=STATED, output="out", **options):
        for number, name in enumerate(files):
            write_hdf5(tmp_path / f"source/multicoil_train/{name}.h5", pictures(number), header)
        table = write_annotations(tmp_path / "brain.csv", rows)
        options = {"allow_missing": True} | options
        return prepare_fastmri(tmp_path / "source", table, tmp_path / output, **options)

    return prepare


def of_test(datalist):
    """Subject -> item of the section test, as it is written."""
    return {item["subject"]: item for item in json.loads(datalist.read_text())["test"]}


def test_a_slice_is_the_picture_that_was_annotated(prepare):
    datalist = prepare()
    item = of_test(datalist)[LOCAL]
    image = nib.load(datalist.parent / item["image"])
    assert image.shape == (WIDTH, ROWS, 1) and image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj)[..., 0].T, pictures(1)[2])
    (box,) = item["boxes"]
    assert box == {"label": "edema", "slice": 0, "box": [1, 2, 4, 3]}
    x, y, w, h = box["box"]
    assert np.array_equal(
        np.asarray(image.dataobj)[x : x + w, y : y + h, 0].T, pictures(1)[2, 2:5, 1:5]
    )


def test_the_affine_says_what_is_known(prepare):
    datalist = prepare()
    image = nib.load(datalist.parent / of_test(datalist)[LOCAL]["image"])
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.allclose(image.header.get_zooms(), (0.5, 0.75, 5))
    middle = image.affine @ [(WIDTH - 1) / 2, (ROWS - 1) / 2, 0, 1]
    assert np.allclose(middle, [0, 0, 0, 1])
    assert (
        image.header["sform_code"] == image.header["qform_code"] == 2
    )  # aligned, not the scanner's coordinates


def test_the_preprocessing_of_the_paper_takes_it_as_one_axial_slice_with_its_box(prepare):
    square = HEADER.format(x=2 * ROWS, y=WIDTH, fov_x=2 * ROWS, fov_y=WIDTH)
    item = load_datalist(prepare(header=square), "test")[0]
    with pytest.raises(InputError, match="single_slice"):
        read_scan(item["image"])
    definition = read_settings("ra", ["paper.json"])["preprocessing"]
    preprocessing = build_preprocessing(
        json.loads(json.dumps(definition).replace("128", str(ROWS)))
    )
    found = AnnotatedSliced(preprocessing)(item)
    upright = pictures(1)[2]
    across = slice((ROWS - WIDTH) // 2, (ROWS + WIDTH) // 2)
    shown = np.asarray(found["image"][0])[:, across]  # anterior first, patient's right first
    rows, columns = torch.where(found["boxes_masks"][0, :, across] > 0.5)
    assert rows.unique().tolist() == [2, 3, 4] and columns.unique().tolist() == [1, 2, 3, 4]
    assert np.corrcoef(shown.ravel(), upright.ravel())[0, 1] > 0.98  # clipped at the percentile


def test_items_tell_group_pathology_and_slice(prepare):
    rows = [
        FINDING,
        (LOCAL, 2, 0, 0, 2, 2, "Possible artifact"),
        (LOCAL, 3, 0, 0, 2, 2, "Craniotomy"),
        (BOTH, 3, 5, 5, 2, 2, "Edema"),
        (BOTH, 3, 0, 0, 2, 2, "Possible artifact"),
        (GLOBAL, "Extra-axial collection"),
        (HELD_OUT, 3, 0, 1, 2, 3, "Normal variant"),
    ]
    datalist = prepare([NORMAL, CHECKED, HELD_OUT, LOCAL, GLOBAL, BOTH], rows)
    content = json.loads(datalist.read_text())
    assert "calibration" not in content
    name = f"{NORMAL}_slice-03.nii.gz"
    assert content["training"] == [
        {
            "image": name,
            "subject": NORMAL,
            "axial_slice": True,
            "source_slice": 3,
            "group": "normal",
        }
    ]
    items = of_test(datalist)
    assert {name: (item["group"], item["pathology"]) for name, item in items.items()} == {
        HELD_OUT: ("normal", "healthy"),
        GLOBAL: ("global_pathology", "extra-axial collection"),
        BOTH: ("global_artefact", "possible artefact, edema"),
        LOCAL: ("local", "edema"),
    }
    assert items[LOCAL]["source_slice"] == 2
    assert items[LOCAL]["other_boxes"] == [
        {"label": "possible artifact", "slice": 0, "box": [0, 0, 2, 2]}
    ]
    assert [box["label"] for box in items[BOTH]["boxes"]] == ["edema"]
    assert items[HELD_OUT]["boxes"] == [] and len(items[HELD_OUT]["other_boxes"]) == 1


def test_labels_that_the_paper_joins_or_leaves_out(prepare):
    kept, dropped = "file_brain_AXT1_202_2020009", "file_brain_AXT1_202_2020334"
    rows = [(kept, 3, 0, 0, 2, 2, "Craniectomy"), (kept, 3, 0, 0, 2, 2, "Extra-axial mass")]
    rows += [(dropped, 3, 0, 0, 2, 2, "Nonspecific lesion"), (dropped, 3, 0, 0, 2, 2, "Craniotomy")]
    items = of_test(prepare([kept, dropped], rows))
    assert [box["label"] for box in items[kept]["boxes"]] == ["craniotomy", "mass"]
    assert [box["label"] for box in items[dropped]["boxes"]] == ["craniotomy"]
    assert [box["label"] for box in items[dropped]["other_boxes"]] == ["nonspecific lesion"]


def test_a_damaged_header_is_refused(prepare):
    with pytest.raises(InputError, match=f"unreadable.*{NORMAL}"):
        prepare(header=STATED[:200])


@pytest.mark.parametrize(
    "header", [None, "<ismrmrdHeader/>", HEADER.format(x=ROWS - 1, y=WIDTH, fov_x=10, fov_y=10)]
)
def test_an_unknown_pixel_size_is_nominal_and_said(prepare, header):
    datalist = prepare(header=header)
    image = nib.load(datalist.parent / of_test(datalist)[LOCAL]["image"])
    assert np.allclose(image.header.get_zooms(), NOMINAL_MM)
    assert f"pixel size not stated, taken as 0.6875 mm: 2 ({NORMAL}, {LOCAL})" in summary(datalist)


def test_size_of_a_pixel_is_that_of_the_encoded_space():
    assert stated_size(STATED, ROWS, WIDTH) == pytest.approx((0.5, 0.75, 5.0))
    assert stated_size(STATED.encode(), ROWS, WIDTH) == stated_size(STATED, ROWS, WIDTH)
    assert stated_size(STATED, ROWS, WIDTH + 1) is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The cohort of all listed files, with as many boxes on each as the paper counts."""
    folder = tmp_path_factory.mktemp("fastmri")
    for number, row in enumerate(ENTRIES):
        write_hdf5(folder / f"source/{row['file']}.h5", pictures(number), patient=str(number))
    rows = [
        (row["file"], row["slice"], 1, 1, 3, 3, "Mass")
        for row in ENTRIES
        for _ in range(int(row["boxes"]))
    ]
    table = write_annotations(folder / "brain.csv", rows)
    return prepare_fastmri(folder / "source", table, folder / "out")


def test_the_whole_split_is_that_of_the_paper(whole):
    items = {
        section: load_datalist(whole, section) for section in ("training", "validation", "test")
    }
    assert [len(items[section]) for section in items] == [131, 15, 165]
    test = items["test"]
    assert Counter(item["group"] for item in test) == {
        "normal": 30,
        "global_pathology": 27,
        "global_artefact": 23,
        "local": 85,
    }
    with_boxes = [item for item in test if item["boxes"]]
    assert len(with_boxes) == 92 and sum(len(item["boxes"]) for item in with_boxes) == 171
    assert Counter(item["group"] for item in with_boxes) == {"local": 85, "global_artefact": 7}
    assert len({item["subject"] for section in items.values() for item in section}) == 311
    assert json.loads(whole.read_text())["notes"] == {}


@pytest.mark.needs_shared
def test_the_annotation_table_gives_the_boxes_of_the_paper(shared_data, tmp_path):
    ramp = np.broadcast_to(np.arange(320, dtype=np.float32), (SLICES, 320, 320))
    original = write_hdf5(tmp_path / "picture.h5", ramp)
    (tmp_path / "source").mkdir()
    for row in ENTRIES:
        (tmp_path / f"source/{row['file']}.h5").symlink_to(original)
    datalist = prepare_fastmri(
        tmp_path / "source", shared_data / "fastmri_plus/brain.csv", tmp_path / "out"
    )
    items, notes = load_datalist(datalist, "test"), json.loads(datalist.read_text())["notes"]
    boxes = [box["label"] for item in items for box in item["boxes"]]
    assert Counter(boxes) == {
        "absent septum pellucidum": 1,
        "craniotomy": 15,
        "dural thickening": 7,
        "edema": 18,
        "encephalomalacia": 1,
        "enlarged ventricles": 19,
        "intraventricular substance": 1,
        "lesion": 22,
        "mass": 26,
        "paranasal sinus opacification": 2,
        "posttreatment change": 44,
        "resection": 10,
        "white matter lesion": 5,
    }
    assert len(boxes) == 171 and sum(bool(item["boxes"]) for item in items) == 92
    counted = {row["file"]: int(row["boxes"]) for row in ENTRIES}
    assert all(len(item["boxes"]) == counted[item["subject"]] for item in items)
    assert {name for name in notes if "pixel size" not in name} == {
        "annotated box without area, left out"
    }
    assert notes["annotated box without area, left out"] == ["file_brain_AXT1_202_2020089 slice 10"]
    pathologies = Counter(
        item["pathology"] for item in items if item["group"] == "global_pathology"
    )
    assert pathologies == {
        "small vessel chronic white matter ischemic change": 25,
        "colpocephaly": 1,
        "extra-axial collection": 1,
    }


@pytest.mark.needs_shared
def test_the_tables_are_made_by_their_script(shared_data):
    script = Path(__file__).parents[2] / "data_lists/make_paper_split.py"
    made = runpy.run_path(str(script))
    reference = shared_data.parent / "reference"
    splits, slices = (
        pd.read_csv(reference / name) for name in ("ra_splits.csv", "fastmri_slices.csv")
    )
    assert (
        made["fastmri_table"](splits, slices).to_csv()
        == (script.parent / "fastmri.csv").read_text()
    )
    assert made["ixi_table"](splits).to_csv(index=False) == (script.parent / "ixi.csv").read_text()


def test_the_tables_hold_the_split_of_the_paper():
    groups = Counter((row["section"], row["group"]) for row in ENTRIES)
    assert groups == {
        ("training", "normal"): 131,
        ("validation", "normal"): 15,
        ("test", "normal"): 30,
        ("test", "global_pathology"): 27,
        ("test", "global_artefact"): 23,
        ("test", "local"): 85,
    }
    assert len({row["file"] for row in ENTRIES}) == 311
    assert all(row["file"].startswith("file_brain_AXT1_") for row in ENTRIES)
    assert all(
        row["slice"] in row["possible_slices"].split() for row in ENTRIES if row["possible_slices"]
    )
    assert len({row["subject"] for row in listed("ixi.csv")}) == 581


def test_one_index_for_all(prepare):
    rows = [(LOCAL, 2, 0, 0, 2, 2, "Edema"), (LOCAL, 4, 0, 0, 5, 5, "Mass")]
    datalist = prepare([NORMAL, LOCAL, HELD_OUT], rows, slices=4)
    item = of_test(datalist)[LOCAL]
    assert item["source_slice"] == 4 and item["pathology"] == "mass"
    assert np.array_equal(
        np.asarray(nib.load(datalist.parent / item["image"]).dataobj)[..., 0].T, pictures(1)[4]
    )
    assert json.loads(datalist.read_text())["training"][0]["source_slice"] == 4


def test_an_index_below_zero_is_no_slice(prepare):
    with pytest.raises(InputError, match="slice_out_of_range.*slice -1 of 6"):
        prepare(slices=-1)


def test_an_own_table_overrules_the_listed_slices(prepare, tmp_path):
    own = tmp_path / "slices.csv"
    own.write_text(f"file,slice\n{NORMAL},5\n")
    datalist = prepare(slices=own)
    assert json.loads(datalist.read_text())["training"][0]["source_slice"] == 5
    assert of_test(datalist)[LOCAL]["source_slice"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,slice\nfile_brain_AXT1_1,3\n", "file_brain_AXT1_1, which is not in"),
        (f"file,slice\n{NORMAL},-1\n", "not a number: '-1'"),
        ("file,index\n", "no column slice"),
        (None, "does not exist"),
    ],
)
def test_an_own_table_that_makes_no_sense_is_refused(prepare, tmp_path, text, message):
    if text is not None:
        (tmp_path / "slices.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        prepare(slices=tmp_path / "slices.csv")


def test_a_local_file_without_a_box_on_its_slice_is_left_out_and_named(prepare):
    datalist = prepare([NORMAL, HELD_OUT, LOCAL, BOTH], [(LOCAL, 4, 0, 0, 2, 2, "Edema")])
    assert set(of_test(datalist)) == {HELD_OUT, BOTH}  # an artefact is one without the box as well
    assert f"left out of the local pathologies: 2 ({BOTH}, {LOCAL})" in summary(datalist)


def test_another_table_of_annotations_shows(prepare):
    assert f"another number of boxes than in the paper's lists: 1 ({LOCAL})" in summary(prepare())


def test_a_box_without_area_is_left_out_and_named(prepare):
    datalist = prepare(
        rows=[FINDING, (LOCAL, 2, 3, 3, 0, 0, "Edema"), (LOCAL, 5, 3, 3, 1, 0, "Edema")]
    )
    assert len(of_test(datalist)[LOCAL]["boxes"]) == 1
    assert f"without area, left out: 2 ({LOCAL} slice 2, {LOCAL} slice 5)" in summary(datalist)


def test_a_box_may_reach_the_edges_of_its_slice(prepare):
    (box,) = of_test(prepare(rows=[(LOCAL, 2, 0, 0, WIDTH, ROWS, "Edema")]))[LOCAL]["boxes"]
    assert box["box"] == [0, 0, WIDTH, ROWS]


@pytest.mark.parametrize("box", [(9, 2, 4, 3), (1, 12, 4, 3), (-1, 2, 4, 3)])
def test_a_box_outside_its_slice_is_refused(prepare, tmp_path, box):
    with pytest.raises(ConfigError, match=f"{LOCAL} lies outside its slice of 12 x 14"):
        prepare(rows=[(LOCAL, 2, *box, "Edema")])
    assert not (tmp_path / "out/datalist.json").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((LOCAL, 2, 1.5, 2, 4, 3, "Edema"), "whole numbers"),
        ((LOCAL, 2, "", 2, 4, 3, "Edema"), "whole numbers"),
        (
            ("file_brain_AXT1POST_200_6002000", 2, 1, 2, 4, 3, "Edema"),
            "annotates no file file_brain_AXT1_",
        ),
    ],
)
def test_a_table_that_is_not_the_annotations_is_refused(prepare, row, message):
    with pytest.raises(ConfigError, match=message):
        prepare(rows=[row])


def test_scans_after_contrast_agent_and_files_outside_the_split_are_passed_over(prepare):
    names = (LOCAL.replace("AXT1", "AXT1POST"), "file_brain_AXT1_202_2020186", LOCAL)
    content = json.loads(prepare(names, [FINDING]).read_text())
    assert [
        item["subject"]
        for section in ("training", "validation", "test")
        for item in content[section]
    ] == [LOCAL]


def test_missing_files_are_named_and_without_the_option_nothing_is_made(prepare, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"309 of the 311 files .*: file_brain_AXT1_201_6002704, .*\.\.\. With --allow",
    ):
        prepare(allow_missing=False)
    assert not (tmp_path / "out").exists()
    datalist = prepare()
    assert "not found: 309 (" in summary(datalist)
    assert len(json.loads(datalist.read_text())["notes"]["not found"]) == 309


def test_none_of_the_files_is_no_cohort(tmp_path):
    (tmp_path / "source").mkdir()
    table = write_annotations(tmp_path / "brain.csv", [FINDING])
    with pytest.raises(ConfigError, match="311 of the 311"):
        prepare_fastmri(tmp_path / "source", table, tmp_path / "out", allow_missing=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_does_not_exist_and_a_file_found_twice(prepare, tmp_path):
    table = write_annotations(tmp_path / "brain.csv", [FINDING])
    with pytest.raises(ConfigError, match="none does not exist"):
        prepare_fastmri(tmp_path / "none", table, tmp_path / "out")
    write_hdf5(tmp_path / f"source/multicoil_val/{LOCAL}.h5", pictures())
    with pytest.raises(ConfigError, match=f"holds {LOCAL}.h5 2 times"):
        prepare()


def test_what_is_written_is_kept_and_an_interrupted_run_leaves_no_datalist(prepare, tmp_path):
    damaged = write_hdf5(tmp_path / f"source/multicoil_train/{LOCAL}.h5", pictures(1))
    damaged.write_bytes(damaged.read_bytes()[:700])
    with pytest.raises(InputError, match=f"unreadable.*{LOCAL}"):
        prepare([NORMAL])
    first = tmp_path / f"out/{NORMAL}_slice-03.nii.gz"
    written = first.stat().st_mtime_ns
    assert not (tmp_path / "out/datalist.json").exists()
    datalist = prepare()
    assert first.stat().st_mtime_ns == written and len(of_test(datalist)) == 1
    assert not [path for path in datalist.parent.iterdir() if path.name.startswith(".")]


def test_other_slices_need_another_folder(prepare):
    datalist = prepare()
    before = datalist.read_text()
    with pytest.raises(ConfigError, match="other options"):
        prepare(slices=4)
    assert datalist.read_text() == before
    assert prepare().read_text() == before


@pytest.mark.parametrize("problem", ["no picture", "short", "constant", "infinite"])
def test_a_file_that_holds_no_picture_is_refused_by_name(prepare, tmp_path, problem):
    path = tmp_path / f"source/{LOCAL}.h5"
    images = pictures()
    if problem == "short":
        images = images[:2]
    if problem == "constant":
        images[:] = 1
    if problem == "infinite":
        images[2, 3, 4] = np.inf
    write_hdf5(path, images)
    if problem == "no picture":
        import h5py

        with h5py.File(path, "a") as file:
            del file["reconstruction_rss"]
    expected = {
        "no picture": (ConfigError, "holds no reconstruction_rss"),
        "short": (InputError, "slice_out_of_range.*slice 2 of 2"),
        "constant": (InputError, "constant_image"),
        "infinite": (InputError, "not_finite"),
    }
    error, message = expected[problem]
    with pytest.raises(error, match=message) as refusal:
        prepare([])
    assert LOCAL in str(refusal.value)
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_dicom_made_by_the_script_of_fastmri_plus_is_the_same_picture(prepare, tmp_path):
    hdf5 = prepare()
    dicoms = tmp_path / "dicom"
    write_dicoms(dicoms / NORMAL, NORMAL, pictures(0))
    write_dicoms(dicoms / LOCAL, LOCAL, pictures(1))
    with pytest.raises(InputError, match="missing_geometry"):
        read_scan(dicoms / LOCAL)
    from_dicom = prepare_fastmri(
        dicoms, tmp_path / "brain.csv", tmp_path / "out-dicom", allow_missing=True
    )
    assert json.loads(from_dicom.read_text())["test"] == json.loads(hdf5.read_text())["test"]
    one, other = (
        nib.load(path.parent / of_test(path)[LOCAL]["image"]) for path in (hdf5, from_dicom)
    )
    assert np.allclose(one.affine, other.affine)
    pixels = np.asarray(other.dataobj)
    assert (
        np.abs(
            pixels - np.asarray(one.dataobj) * pixels.max() / np.asarray(one.dataobj).max()
        ).max()
        < 3
    )  # of 1024
    with pytest.raises(ConfigError, match="other options"):
        prepare_fastmri(dicoms, tmp_path / "brain.csv", tmp_path / "out", allow_missing=True)


def test_one_examination_in_two_sections_is_said(tmp_path):
    for name, patient in ((NORMAL, "a"), (CHECKED, "a"), (HELD_OUT, "b")):
        write_hdf5(tmp_path / f"source/{name}.h5", pictures(), patient=patient)
    table = write_annotations(tmp_path / "brain.csv", [FINDING])
    datalist = prepare_fastmri(tmp_path / "source", table, tmp_path / "out", allow_missing=True)
    assert f"in two sections of the paper's split: 2 ({NORMAL}, {CHECKED})" in summary(datalist)


def test_a_missing_package_is_named(prepare, monkeypatch):
    datalist = prepare()
    datalist.unlink()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install pathology-screen\[fastmri\]"):
        prepare(files=[])
    assert not datalist.exists()


def test_boxes_of_a_slice_are_in_alphabetical_order(tmp_path):
    rows = [
        (LOCAL, 2, 1, 1, 1, 1, "Mass"),
        (LOCAL, 2, 2, 2, 1, 1, "Edema"),
        (LOCAL, 1, 3, 3, 1, 1, "Mass"),
    ]
    found = read_annotations(write_annotations(tmp_path / "brain.csv", rows))
    assert found[LOCAL] == [
        (1, "Mass", (3, 3, 1, 1)),
        (2, "Edema", (2, 2, 1, 1)),
        (2, "Mass", (1, 1, 1, 1)),
    ]
    assert found.keys() == {LOCAL}
