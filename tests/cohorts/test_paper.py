"""The paper's cohort: fastMRI+ and IXI in one datalist."""

import json
import os
import shutil

import numpy as np
import pytest
from fastmri_builder import pictures, write_annotations, write_hdf5

from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.fastmri import prepare_fastmri
from pathology_screen.cohorts.paper import prepare_paper
from pathology_screen.cohorts.preparation import (
    begin,
    listed,
    read_notes,
    save_scan,
    write_datalist,
)
from pathology_screen.errors import ConfigError

FILES, SUBJECTS = listed("fastmri.csv"), [row["subject"] for row in listed("ixi.csv")]
LOCAL = next(row for row in FILES if row["group"] == "local")


@pytest.fixture(scope="module")
def fastmri(tmp_path_factory):
    """Folder of the whole split, every file being the same picture."""
    folder = tmp_path_factory.mktemp("fastmri")
    original = write_hdf5(folder / "picture.h5", pictures())
    (folder / "source").mkdir()
    for row in FILES:
        (folder / f"source/{row['file']}.h5").symlink_to(original)
    rows = [
        (row["file"], row["slice"], 1, 1, 3, 3, "Mass")
        for row in FILES
        for _ in range(int(row["boxes"]))
    ]
    table = write_annotations(folder / "brain.csv", rows)
    return prepare_fastmri(folder / "source", table, folder / "out").parent


@pytest.fixture
def ixi(tmp_path):
    """Function that makes a folder of IXI subjects, half of them in training and half in test."""

    def make(subjects, name="ixi"):
        folder = tmp_path / name
        one = save_scan(
            folder / "one.nii.gz",
            lambda: (pictures()[0], np.diag([1.0, 1.0, 5.0, 1.0])),
            space="mni",
        )
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
    datalist = prepare_paper(fastmri, ixi([*SUBJECTS, "IXI999"]), tmp_path / "paper")
    items = {
        section: load_datalist(datalist, section) for section in ("training", "validation", "test")
    }
    assert {section: len(items[section]) for section in items} == {
        "training": 712,
        "validation": 15,
        "test": 165,
    }
    assert sum(item["subject"].startswith("IXI") for item in items["training"]) == 581
    assert not any(
        item["subject"].startswith("IXI")
        for section in ("validation", "test")
        for item in items[section]
    )
    assert sum(len(item["boxes"]) for item in items["test"]) == 171
    content = json.loads(datalist.read_text())
    assert "calibration" not in content
    original = json.loads((fastmri / "datalist.json").read_text())["test"]
    assert [{**item, "image": None} for item in content["test"]] == [
        {**item, "image": None} for item in original
    ]
    assert content["notes"] == {
        "no T1w scan": ["IXI000"],
        "IXI subject that is not in the paper's list, left out": ["IXI999"],
    }


def test_the_paths_lead_to_the_prepared_slices_from_anywhere(fastmri, ixi, tmp_path, monkeypatch):
    folder = ixi(SUBJECTS[:3])
    shutil.copytree(fastmri, tmp_path / "fastmri")
    monkeypatch.chdir(tmp_path)
    datalist = prepare_paper("fastmri", "ixi/datalist.json", "paper", allow_missing=True)
    content = json.loads(datalist.read_text())
    images = [item["image"] for item in content["training"]]
    assert images[0].startswith("../fastmri/file_brain_AXT1_") and images[-1].startswith(
        "../ixi/sub-IXI"
    )
    monkeypatch.chdir("/")
    assert len(load_datalist(tmp_path / "paper/datalist.json", "training")) == 134
    assert read_notes(tmp_path / "paper/datalist.json")["IXI subject not found"] == SUBJECTS[3:]
    assert folder.is_dir()


def test_missing_subjects_are_named(fastmri, ixi, tmp_path):
    folder = ixi(SUBJECTS[1:])
    with pytest.raises(
        ConfigError, match=f"lacks 1 of the 581 .*: {SUBJECTS[0]}\\. With --allow-missing"
    ):
        prepare_paper(fastmri, folder, tmp_path / "paper")
    with pytest.raises(ConfigError, match="lacks 581 of the 581"):
        prepare_paper(
            fastmri, ixi(["IXI999", "IXI998"], "other"), tmp_path / "paper", allow_missing=True
        )
    assert not (tmp_path / "paper").exists()


def test_two_images_of_a_subject_are_refused(fastmri, ixi, tmp_path):
    folder = ixi([*SUBJECTS, "IXI999", SUBJECTS[0]])  # the first and the last are both in training
    with pytest.raises(ConfigError, match=f"several images of {SUBJECTS[0]}"):
        prepare_paper(fastmri, folder, tmp_path / "paper")


def test_brains_and_whole_heads_are_not_mixed(fastmri, ixi, tmp_path):
    folder = ixi(SUBJECTS)
    begin(folder, {"cohort": "ixi", "domain": "brain_extracted"})
    with pytest.raises(ConfigError, match="extracted brains"):
        prepare_paper(fastmri, folder, tmp_path / "paper")


def test_what_is_not_the_cohort_of_fastmri_is_refused(fastmri, ixi, tmp_path):
    folder = ixi(SUBJECTS)
    with pytest.raises(ConfigError, match=f"{SUBJECTS[0]} does not belong there"):
        prepare_paper(folder, folder, tmp_path / "paper")
    with pytest.raises(ConfigError, match="does not exist"):
        prepare_paper(tmp_path / "none", folder, tmp_path / "paper")
    content = json.loads((fastmri / "datalist.json").read_text())
    content["training"].append(content["test"].pop())
    moved = shutil.copytree(fastmri, tmp_path / "moved")
    (moved / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(
        ConfigError, match=f"{content['training'][-1]['subject']} does not belong there"
    ):
        prepare_paper(moved, folder, tmp_path / "paper")
