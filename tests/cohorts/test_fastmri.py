"""The fastMRI+ cohort: orientation, boxes, the paper's split, and what is missing or damaged."""

import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import h5py
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
    write_whole_split,
)

from pathology_screen.bundles import read_settings
from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.contact_sheet import summary
from pathology_screen.cohorts.datalist import load_sections, read_notes
from pathology_screen.cohorts.fastmri import NOMINAL_MM, prepare_fastmri
from pathology_screen.cohorts.preparation import listed
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

    def prepare(files=(NORMAL, LOCAL), rows=(FINDING,), header=STATED, source="source", **options):
        for number, name in enumerate(files):
            write_hdf5(tmp_path / f"source/multicoil_train/{name}.h5", pictures(number), header)
        table = write_annotations(tmp_path / "brain.csv", rows)
        options = {"output": tmp_path / "out", "allow_missing": True} | options
        return prepare_fastmri(tmp_path / source, table, **options)

    return prepare


def of_test(datalist):
    """Subject -> item of the section test, as it is written."""
    return {item["subject"]: item for item in json.loads(datalist.read_text())["test"]}


def image_of(datalist, subject=LOCAL):
    return nib.load(datalist.parent / of_test(datalist)[subject]["image"])


def test_a_slice_is_the_picture_that_was_annotated(prepare):
    datalist = prepare()
    image, item = image_of(datalist), of_test(datalist)[LOCAL]
    assert image.shape == (WIDTH, ROWS, 1) and image.get_data_dtype() == np.float32
    assert np.array_equal(image.dataobj[..., 0].T, pictures(1)[2])
    assert item["boxes"] == [{"label": "edema", "slice": 0, "box": [1, 2, 4, 3]}]
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.allclose(image.header.get_zooms(), (0.5, 0.75, 5))
    middle = image.affine @ [(WIDTH - 1) / 2, (ROWS - 1) / 2, 0, 1]
    assert np.allclose(middle, [0, 0, 0, 1])
    assert image.header["sform_code"] == image.header["qform_code"] == 2  # aligned, not scanner


def test_the_preprocessing_of_the_paper_takes_it_as_one_axial_slice_with_its_box(prepare):
    square = HEADER.format(x=2 * ROWS, y=WIDTH, fov_x=2 * ROWS, fov_y=WIDTH)
    item = load_datalist(prepare(header=square), "test")[0]
    with pytest.raises(InputError, match="single_slice"):
        read_scan(item["image"])
    definition = json.dumps(read_settings("ra", ["paper.json"])["preprocessing"])
    preprocessing = build_preprocessing(json.loads(definition.replace("128", str(ROWS))))
    found = AnnotatedSliced(preprocessing)(item)
    across = slice((ROWS - WIDTH) // 2, (ROWS + WIDTH) // 2)
    shown = np.asarray(found["image"][0])[:, across]  # anterior first, patient's right first
    rows, columns = torch.where(found["boxes_masks"][0, :, across] > 0.5)
    assert rows.unique().tolist() == [2, 3, 4] and columns.unique().tolist() == [1, 2, 3, 4]
    upright = pictures(1)[2]  # and is clipped at the percentile
    assert np.corrcoef(shown.ravel(), upright.ravel())[0, 1] > 0.98


def test_items_tell_group_pathology_and_slice(prepare):
    rows = [
        *((LOCAL, 2, 1, 1, 1, 1, "Mass"), FINDING),
        (LOCAL, 2, 0, 0, 2, 2, "Possible artifact"),
        (LOCAL, 3, 0, 0, 2, 2, "Craniotomy"),
        (BOTH, 3, 5, 5, 2, 2, "Edema"),
        (BOTH, 3, 0, 0, 2, 2, "Possible artifact"),
        (GLOBAL, "Extra-axial collection"),
        (HELD_OUT, 3, 0, 1, 2, 3, "Normal variant"),
    ]
    content = json.loads(
        prepare([NORMAL, CHECKED, HELD_OUT, LOCAL, GLOBAL, BOTH], rows).read_text()
    )
    assert "calibration" not in content
    healthy = {"image": f"{NORMAL}_slice-03.nii.gz", "subject": NORMAL, "axial_slice": True}
    assert content["training"] == [{**healthy, "source_slice": 3, "group": "normal"}]
    items = {item["subject"]: item for item in content["test"]}
    assert {name: (item["group"], item["pathology"]) for name, item in items.items()} == {
        HELD_OUT: ("normal", "healthy"),
        GLOBAL: ("global_pathology", "extra-axial collection"),
        BOTH: ("global_artefact", "possible artefact, edema"),
        LOCAL: ("local", "edema, mass"),
    }
    assert items[LOCAL]["source_slice"] == 2
    assert [box["label"] for box in items[LOCAL]["boxes"]] == ["edema", "mass"]  # in this order
    other = {"label": "possible artifact", "slice": 0, "box": [0, 0, 2, 2]}
    assert items[LOCAL]["other_boxes"] == [other]
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
    assert np.allclose(image_of(datalist).header.get_zooms(), NOMINAL_MM)
    assert f"pixel size not stated, taken as 0.6875 mm: 2 ({NORMAL}, {LOCAL})" in summary(datalist)


def test_the_whole_split_is_that_of_the_paper(tmp_path):
    datalist = write_whole_split(tmp_path)
    items = load_sections(datalist)
    assert {section: len(found) for section, found in items.items()} == {
        **{"training": 131, "validation": 15},
        "test": 165,
    }
    local = {"normal": 30, "global_pathology": 27, "global_artefact": 23, "local": 85}
    assert Counter(item["group"] for item in items["test"]) == local
    with_boxes = [item for item in items["test"] if item["boxes"]]
    assert len(with_boxes) == 92 and sum(len(item["boxes"]) for item in with_boxes) == 171
    assert Counter(item["group"] for item in with_boxes) == {"local": 85, "global_artefact": 7}
    assert len({item["subject"] for section in items.values() for item in section}) == 311
    assert read_notes(datalist) == {}


@pytest.mark.needs_shared
def test_the_annotation_table_gives_the_boxes_of_the_paper(shared_data, tmp_path):
    ramp = np.broadcast_to(np.arange(320, dtype=np.float32), (SLICES, 320, 320))
    datalist = write_whole_split(tmp_path, ramp, shared_data / "fastmri_plus/brain.csv")
    items, notes = load_datalist(datalist, "test"), read_notes(datalist)
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
    empty = {"annotated box without area, left out": ["file_brain_AXT1_202_2020089 slice 10"]}
    assert {note: names for note, names in notes.items() if "pixel size" not in note} == empty
    whole = Counter(item["pathology"] for item in items if item["group"] == "global_pathology")
    assert whole == {
        "small vessel chronic white matter ischemic change": 25,
        "colpocephaly": 1,
        "extra-axial collection": 1,
    }


@pytest.mark.needs_shared
def test_the_tables_are_made_by_their_script(shared_data):
    script = Path(__file__).parents[2] / "data_lists/make_paper_split.py"
    made, reference = runpy.run_path(str(script)), shared_data.parent / "reference"
    splits = pd.read_csv(reference / "ra_splits.csv")
    files = made["fastmri_table"](splits, pd.read_csv(reference / "fastmri_slices.csv"))
    assert files.to_csv() == script.with_name("fastmri.csv").read_text()
    assert made["ixi_table"](splits).to_csv(index=False) == script.with_name("ixi.csv").read_text()


def test_the_tables_choose_slices_that_fit_and_of_ixi_all_people():
    assert all(row["group"] == "normal" for row in ENTRIES if row["section"] != "test")
    assert all(row["file"].startswith("file_brain_AXT1_") for row in ENTRIES)
    possible = [(row["slice"], row["possible_slices"].split()) for row in ENTRIES]
    assert all(chosen in fitting for chosen, fitting in possible if fitting)
    assert len({row["subject"] for row in listed("ixi.csv")}) == 581


def test_slices_by_an_index_or_an_own_table(prepare, tmp_path):
    rows = [(LOCAL, 2, 0, 0, 2, 2, "Edema"), (LOCAL, 4, 0, 0, 5, 5, "Mass")]
    datalist = prepare([NORMAL, LOCAL, HELD_OUT], rows, slices=4)
    item = of_test(datalist)[LOCAL]
    assert item["source_slice"] == 4 and item["pathology"] == "mass"
    assert np.array_equal(image_of(datalist).dataobj[..., 0].T, pictures(1)[4])
    assert load_datalist(datalist, "training")[0]["source_slice"] == 4
    (tmp_path / "slices.csv").write_text(f"file,slice\n{NORMAL},5\n")
    datalist = prepare(slices=tmp_path / "slices.csv", output=tmp_path / "own")
    assert load_datalist(datalist, "training")[0]["source_slice"] == 5
    assert of_test(datalist)[LOCAL]["source_slice"] == 2
    with pytest.raises(InputError, match="slice_out_of_range.*slice -1 of 6"):
        prepare(slices=-1, output=tmp_path / "none")


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


def test_odd_boxes_are_named_and_a_box_may_reach_the_edges(prepare):
    full = (LOCAL, 2, 0, 0, WIDTH, ROWS, "Edema")
    datalist = prepare(
        rows=[full, (LOCAL, 2, 3, 3, 0, 0, "Edema"), (LOCAL, 5, 3, 3, 1, 0, "Edema")]
    )
    assert [box["box"] for box in of_test(datalist)[LOCAL]["boxes"]] == [[0, 0, WIDTH, ROWS]]
    table = summary(datalist)
    assert f"without area, left out: 2 ({LOCAL} slice 2, {LOCAL} slice 5)" in table
    assert f"another number of boxes than in the paper's lists: 1 ({LOCAL})" in table


@pytest.mark.parametrize("box", [(9, 2, 4, 3), (1, 12, 4, 3), (-1, 2, 4, 3)])
def test_a_box_outside_its_slice_is_refused(prepare, tmp_path, box):
    with pytest.raises(ConfigError, match=f"{LOCAL} lies outside its slice of 12 x 14"):
        prepare(rows=[(LOCAL, 2, *box, "Edema")])
    assert not (tmp_path / "out/datalist.json").exists()


@pytest.mark.parametrize(
    ("file", "x", "message"),
    [
        (LOCAL, 1.5, "whole numbers"),
        (LOCAL, "", "whole numbers"),
        ("file_brain_AXT1POST_200_6002000", 1, "annotates no file file_brain_AXT1_"),
    ],
)
def test_a_table_that_is_not_the_annotations_is_refused(prepare, file, x, message):
    with pytest.raises(ConfigError, match=message):
        prepare(rows=[(file, 2, x, 2, 4, 3, "Edema")])


def test_scans_after_contrast_agent_and_files_outside_the_split_are_passed_over(prepare):
    names = (LOCAL.replace("AXT1", "AXT1POST"), "file_brain_AXT1_202_2020186", LOCAL)
    sections = load_sections(prepare(names)).values()
    assert [item["subject"] for items in sections for item in items] == [LOCAL]


def test_missing_files_are_named_and_without_the_option_nothing_is_made(prepare, tmp_path):
    message = r"309 of the 311 files .*: file_brain_AXT1_201_6002704, .*\.\.\. With --allow"
    with pytest.raises(ConfigError, match=message):
        prepare(allow_missing=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="311 of the 311"):
        prepare(source="empty")
    with pytest.raises(ConfigError, match="none does not exist"):
        prepare(source="none")
    assert not (tmp_path / "out").exists()
    assert len(read_notes(prepare())["not found"]) == 309
    write_hdf5(tmp_path / f"source/multicoil_val/{LOCAL}.h5", pictures())
    with pytest.raises(ConfigError, match=f"holds {LOCAL}.h5 twice"):
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
    assert not list(datalist.parent.glob(".*"))
    before = datalist.read_text()
    with pytest.raises(ConfigError, match="other options"):
        prepare(slices=4)
    assert datalist.read_text() == before == prepare().read_text()


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda images: None, ConfigError, "holds no reconstruction_rss"),
        (lambda images: images[0], InputError, "not_3d.*has 2 axes"),
        (lambda images: images[:2], InputError, "slice_out_of_range.*slice 2 of 2"),
        (lambda images: np.ones_like(images), InputError, "constant_image"),
        (lambda images: images + np.inf, InputError, "not_finite"),
    ],
)
def test_a_file_that_holds_no_picture_is_refused_by_name(prepare, tmp_path, spoil, error, message):
    path = write_hdf5(tmp_path / f"source/{LOCAL}.h5", pictures())
    with h5py.File(path, "a") as file:
        del file["reconstruction_rss"]
        if (images := spoil(pictures())) is not None:
            file["reconstruction_rss"] = images
    with pytest.raises(error, match=message) as refusal:
        prepare([])
    assert LOCAL in str(refusal.value)
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_dicom_made_by_the_script_of_fastmri_plus_is_the_same_picture(prepare, tmp_path):
    hdf5 = prepare()
    for number, name in enumerate((NORMAL, LOCAL)):
        write_dicoms(tmp_path / "dicom" / name, name, pictures(number))
    with pytest.raises(InputError, match="missing_geometry"):
        read_scan(tmp_path / "dicom" / LOCAL)
    dicom = prepare([], source="dicom", output=tmp_path / "out-dicom")
    assert of_test(dicom) == of_test(hdf5)
    one, other = image_of(hdf5), image_of(dicom)
    assert np.allclose(one.affine, other.affine)
    stored, pixels = (np.asarray(image.dataobj) for image in (one, other))
    assert np.abs(pixels - stored * pixels.max() / stored.max()).max() < 3  # of 1024
    with pytest.raises(ConfigError, match="other options"):
        prepare([], source="dicom")


def test_one_examination_in_two_sections_is_said(prepare, tmp_path):
    for name, patient in ((NORMAL, "a"), (CHECKED, "a"), (HELD_OUT, "b")):
        write_hdf5(tmp_path / f"source/{name}.h5", pictures(), patient=patient)
    assert f"two sections of the paper's split: 2 ({NORMAL}, {CHECKED})" in summary(prepare([]))


def test_a_missing_package_is_named(prepare, monkeypatch, tmp_path):
    write_hdf5(tmp_path / f"source/{NORMAL}.h5", pictures())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install pathology-screen\[fastmri\]"):
        prepare([])
    assert not (tmp_path / "out/datalist.json").exists()
