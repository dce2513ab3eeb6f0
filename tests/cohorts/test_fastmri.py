"""The paper's cohort: orientation, boxes and split of fastMRI+, what is missing or damaged, and
fastMRI+ with IXI in one datalist."""

import json
import os
import runpy
import shutil
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
from pathology_screen.cohorts.datalist import load_sections, read_notes, write_datalist
from pathology_screen.cohorts.fastmri import NOMINAL_MM, prepare_fastmri, prepare_paper
from pathology_screen.cohorts.preparation import begin, listed, save_scan
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
SUBJECTS = [row["subject"] for row in listed("ixi.csv")]


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


def labels(boxes):
    return [box["label"] for box in boxes]


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
    assert image.header.get_xyzt_units()[0] == "mm"


def test_the_preprocessing_of_the_paper_takes_it_as_one_axial_slice_with_its_box(prepare):
    square = HEADER.format(x=2 * ROWS, y=WIDTH, fov_x=2 * ROWS, fov_y=WIDTH)
    item = load_datalist(prepare(header=square), "test")[0]
    with pytest.raises(InputError, match="single_slice"):
        read_scan(item["image"])
    definition = json.dumps(read_settings("ra", "paper")["preprocessing"])
    preprocessing = build_preprocessing(json.loads(definition.replace("128", str(ROWS))))
    found = AnnotatedSliced(preprocessing)(item)
    across = slice((ROWS - WIDTH) // 2, (ROWS + WIDTH) // 2)
    shown = np.asarray(found["image"][0])[:, across]  # anterior first, patient's right first
    rows, columns = torch.where(found["boxes_masks"][0, :, across] > 0.5)
    assert rows.unique().tolist() == [2, 3, 4] and columns.unique().tolist() == [1, 2, 3, 4]
    upright = pictures(1)[2]  # and is clipped at the percentile
    assert np.corrcoef(shown.ravel(), upright.ravel())[0, 1] > 0.98


def test_items_tell_group_pathology_and_slice(prepare):
    """Of a file without area findings, of joined labels, and of one that the paper leaves out."""
    joined, dropped = "file_brain_AXT1_202_2020009", "file_brain_AXT1_202_2020334"
    rows = [
        *((LOCAL, 2, 1, 1, 1, 1, "Mass"), FINDING, (LOCAL, 2, 0, 0, 2, 2, "Possible artifact")),
        (LOCAL, 3, 0, 0, 2, 2, "Craniotomy"),
        *((BOTH, 3, 5, 5, 2, 2, "Edema"), (BOTH, 3, 0, 0, 2, 2, "Possible artifact")),
        (GLOBAL, "Extra-axial collection"),
        (HELD_OUT, 3, 0, 1, 2, 3, "Normal variant"),
        *((joined, 3, 0, 0, 2, 2, label) for label in ("Craniectomy", "Extra-axial mass")),
        *((dropped, 3, 0, 0, 2, 2, label) for label in ("Nonspecific lesion", "Craniotomy")),
    ]
    files = [NORMAL, CHECKED, HELD_OUT, LOCAL, GLOBAL, BOTH, joined, dropped]
    content = json.loads(prepare(files, rows).read_text())
    assert "calibration" not in content
    healthy = {"image": f"{NORMAL}_slice-03.nii.gz", "subject": NORMAL, "axial_slice": True}
    assert content["training"] == [{**healthy, "source_slice": 3, "group": "normal"}]
    items = {item["subject"]: item for item in content["test"]}
    told = {name: (item["group"], item["pathology"]) for name, item in items.items()}
    assert told == {
        HELD_OUT: ("normal", "healthy"),
        GLOBAL: ("global_pathology", "extra-axial collection"),
        BOTH: ("global_artefact", "possible artefact, edema"),
        LOCAL: ("local", "edema, mass"),
        joined: ("local", "craniotomy, mass"),
        dropped: ("local", "craniotomy"),
    }
    assert items[LOCAL]["source_slice"] == 2
    assert labels(items[LOCAL]["boxes"]) == ["edema", "mass"]  # in this order
    other = {"label": "possible artifact", "slice": 0, "box": [0, 0, 2, 2]}
    assert items[LOCAL]["other_boxes"] == [other]
    assert labels(items[BOTH]["boxes"]) == ["edema"]
    assert items[HELD_OUT]["boxes"] == [] and len(items[HELD_OUT]["other_boxes"]) == 1
    assert labels(items[joined]["boxes"]) == ["craniotomy", "mass"]
    assert labels(items[dropped]["boxes"]) == ["craniotomy"]
    assert labels(items[dropped]["other_boxes"]) == ["nonspecific lesion"]


@pytest.mark.parametrize(
    "header", [None, "<ismrmrdHeader/>", HEADER.format(x=ROWS - 1, y=WIDTH, fov_x=10, fov_y=10)]
)
def test_an_unknown_pixel_size_is_nominal_and_said(prepare, header):
    datalist = prepare(header=header)
    assert np.allclose(image_of(datalist).header.get_zooms(), NOMINAL_MM)
    assert f"pixel size not stated, taken as 0.6875 mm: 2 ({NORMAL}, {LOCAL})" in summary(datalist)


@pytest.mark.needs_shared
def test_the_annotation_table_gives_the_boxes_of_the_paper(shared_data, tmp_path):
    ramp = np.broadcast_to(np.arange(320, dtype=np.float32), (SLICES, 320, 320))
    datalist = write_whole_split(tmp_path, ramp, shared_data / "fastmri_plus/brain.csv")
    items, notes = load_datalist(datalist, "test"), read_notes(datalist)
    boxes = [label for item in items for label in labels(item["boxes"])]
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
    assert len(set(SUBJECTS)) == 581


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
    ],
)
def test_an_own_table_that_makes_no_sense_is_refused(prepare, tmp_path, text, message):
    (tmp_path / "slices.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        prepare(slices=tmp_path / "slices.csv")


def test_odd_boxes_are_named_and_a_local_file_without_one_is_left_out(prepare, tmp_path):
    """A box may reach the edges."""
    rows = [(LOCAL, 2, 0, 0, WIDTH, ROWS, "Edema"), (LOCAL, 2, 3, 3, 0, 0, "Edema")]
    datalist = prepare(rows=[*rows, (LOCAL, 5, 3, 3, 1, 0, "Edema")])
    assert [box["box"] for box in of_test(datalist)[LOCAL]["boxes"]] == [[0, 0, WIDTH, ROWS]]
    table = summary(datalist)
    assert f"without area, left out: 2 ({LOCAL} slice 2, {LOCAL} slice 5)" in table
    assert f"another number of boxes than in the paper's lists: 1 ({LOCAL})" in table
    datalist = prepare([NORMAL, HELD_OUT, LOCAL, BOTH], [(LOCAL, 4, 0, 0, 2, 2, "Edema")])
    assert set(of_test(datalist)) == {HELD_OUT, BOTH}  # an artefact is one without the box as well
    assert f"left out of the local pathologies: 2 ({BOTH}, {LOCAL})" in summary(datalist)


OUTSIDE = f"{LOCAL} lies outside its slice of 12 x 14"


@pytest.mark.parametrize(
    ("file", "box", "message"),
    [
        *((LOCAL, box, OUTSIDE) for box in ((9, 2, 4, 3), (1, 12, 4, 3), (-1, 2, 4, 3))),
        *((LOCAL, (x, 2, 4, 3), "whole numbers") for x in (1.5, "")),
        ("file_brain_AXT1POST_200_6002000", (1, 2, 4, 3), "annotates no file file_brain_AXT1_"),
    ],
)
def test_annotations_that_make_no_sense_are_refused(prepare, tmp_path, file, box, message):
    with pytest.raises(ConfigError, match=message):
        prepare(rows=[(file, 2, *box, "Edema")])
    assert not (tmp_path / "out/datalist.json").exists()


def test_missing_files_are_named_and_without_the_option_nothing_is_made(prepare, tmp_path):
    """Scans after contrast agent and files outside the split are passed over."""
    (tmp_path / "empty").mkdir()
    more = (LOCAL.replace("AXT1", "AXT1POST"), "file_brain_AXT1_202_2020186")
    first = r"309 of the 311 files .*: file_brain_AXT1_201_6002704, .*\.\.\. With --allow"
    for message, options in (
        (first, {"allow_missing": False, "files": (NORMAL, LOCAL, *more)}),
        ("311 of the 311", {"source": "empty"}),
        ("none does not exist", {"source": "none"}),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(**options)
    assert not (tmp_path / "out").exists()
    datalist = prepare()
    assert len(read_notes(datalist)["not found"]) == 309
    assert [len(items) for items in load_sections(datalist).values()] == [1, 0, 1]
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
    ("spoil", "header", "error", "message"),
    [
        (lambda images: None, STATED, ConfigError, "holds no reconstruction_rss"),
        (lambda images: images[0], STATED, InputError, "not_3d.*has 2 axes"),
        (lambda images: images[:2], STATED, InputError, "slice_out_of_range.*slice 2 of 2"),
        (lambda images: np.ones_like(images), STATED, InputError, "constant_image"),
        (lambda images: images + np.inf, STATED, InputError, "not_finite"),
        (lambda images: images, STATED[:200], InputError, "unreadable"),
    ],
)
def test_a_file_that_holds_no_picture_is_refused_by_name(
    prepare, tmp_path, spoil, header, error, message
):
    path = write_hdf5(tmp_path / f"source/{LOCAL}.h5", pictures(), header)
    with h5py.File(path, "a") as file:
        del file["reconstruction_rss"]
        if (images := spoil(pictures())) is not None:
            file["reconstruction_rss"] = images
    with pytest.raises(error, match=message) as refusal:
        prepare([])
    assert LOCAL in str(refusal.value) and not list((tmp_path / "out").glob("*.nii.gz"))


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


@pytest.mark.parametrize(
    ("package", "extra", "name"),
    [("h5py", "fastmri", f"{NORMAL}.h5"), ("pydicom", "dicom", f"{NORMAL}_003.dcm")],
)
def test_a_missing_package_is_named(prepare, monkeypatch, tmp_path, package, extra, name):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / name).touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install pathology-screen\[{extra}\]"):
        prepare([], source="files")


@pytest.fixture(scope="module")
def fastmri(tmp_path_factory):
    """Folder of the whole split."""
    return write_whole_split(tmp_path_factory.mktemp("fastmri")).parent


@pytest.fixture
def ixi(tmp_path):
    """Function that makes a folder of IXI subjects, half of them in training and half in test."""

    def make(subjects, name="ixi"):
        folder = tmp_path / name
        one = folder / "one.nii.gz"
        save_scan(pictures()[0], np.diag([1.0, 1.0, 5.0, 1.0]), one, "mni")
        items = []
        for number, subject in enumerate(subjects):
            image = folder / f"sub-{subject}-{number}_T1w.nii.gz"
            os.link(one, image)
            items.append({"image": image.name, "subject": subject, "axial_slice": True})
        sections = {"training": items[::2], "test": items[1::2]}
        write_datalist(folder, sections, "IXI", notes={"no T1w scan": ["IXI000"]})
        return folder

    return make


def test_the_cohort_of_the_paper(fastmri, ixi, tmp_path):
    items = load_sections(fastmri / "datalist.json")
    assert {name: len(of) for name, of in items.items()} == {
        **{"training": 131, "validation": 15},
        "test": 165,
    }
    local = {"normal": 30, "global_pathology": 27, "global_artefact": 23, "local": 85}
    assert Counter(item["group"] for item in items["test"]) == local
    with_boxes = [item for item in items["test"] if item["boxes"]]
    assert sum(len(item["boxes"]) for item in with_boxes) == 171
    assert Counter(item["group"] for item in with_boxes) == {"local": 85, "global_artefact": 7}
    assert len({item["subject"] for section in items.values() for item in section}) == 311
    assert read_notes(fastmri / "datalist.json") == {}

    datalist = prepare_paper(fastmri, ixi([*SUBJECTS, "IXI999"]), tmp_path / "paper")
    both = load_sections(datalist)
    of_ixi = [item for item in both["training"] if item["subject"].startswith("IXI")]
    assert len(of_ixi) == 581 and len(both["training"]) == 131 + 581
    for section in ("validation", "test"):
        whole, original = ([item | {"image": 0} for item in of[section]] for of in (both, items))
        assert whole == original
    assert read_notes(datalist) == {
        "no T1w scan": ["IXI000"],
        "IXI subject that is not in the paper's list, left out": ["IXI999"],
    }


def test_the_paths_lead_to_the_prepared_slices_from_anywhere(fastmri, ixi, tmp_path, monkeypatch):
    ixi(SUBJECTS[:3])
    shutil.copytree(fastmri, tmp_path / "fastmri")
    monkeypatch.chdir(tmp_path)
    datalist = prepare_paper("fastmri", "ixi/datalist.json", "paper", allow_missing=True)
    images = [item["image"] for item in json.loads(datalist.read_text())["training"]]
    assert images[0].startswith("../fastmri/file_brain_AXT1_")
    assert images[-1].startswith("../ixi/sub-IXI")
    monkeypatch.chdir("/")
    assert len(load_datalist(tmp_path / "paper/datalist.json", "training")) == 134
    assert read_notes(tmp_path / "paper/datalist.json")["IXI subject not found"] == SUBJECTS[3:]


def test_what_does_not_fit_is_refused(fastmri, ixi, tmp_path):
    def refused(message, *sources, **options):
        with pytest.raises(ConfigError, match=message):
            prepare_paper(*sources, tmp_path / "paper", **options)

    first, whole = SUBJECTS[0], ixi(SUBJECTS)
    one_missing = f"lacks 1 of the 581 .*: {first}\\. With --allow-missing"
    refused(one_missing, fastmri, ixi(SUBJECTS[1:], "missing"))
    other = ixi(["IXI999", "IXI998"], "other")
    refused("lacks 581 of the 581", fastmri, other, allow_missing=True)
    twice = ixi([*SUBJECTS, "IXI999", first], "twice")  # first and last are both in training
    refused(f"several images of {first}", fastmri, twice)
    refused(f"{first} does not belong there", whole, whole)
    refused("does not exist", tmp_path / "none", whole)
    begin(whole, {"cohort": "ixi", "domain": "brain_extracted"})
    refused("extracted brains", fastmri, whole)
    content = json.loads((fastmri / "datalist.json").read_text())
    content["training"].append(content["test"].pop())
    moved = shutil.copytree(fastmri, tmp_path / "moved")
    (moved / "datalist.json").write_text(json.dumps(content))
    refused(f"{content['training'][-1]['subject']} does not belong there", moved, other)
    assert not (tmp_path / "paper").exists()
