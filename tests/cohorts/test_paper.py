"""The paper's cohort: fastMRI+ and IXI in one datalist."""

import json
import os
import shutil

import numpy as np
import pytest
from fastmri_builder import pictures, write_whole_split

from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.datalist import load_sections, read_notes, write_datalist
from pathology_screen.cohorts.paper import prepare_paper
from pathology_screen.cohorts.preparation import begin, listed, save_scan
from pathology_screen.errors import ConfigError

SUBJECTS = [row["subject"] for row in listed("ixi.csv")]


@pytest.fixture(scope="module")
def fastmri(tmp_path_factory):
    """Folder of the whole split."""
    return write_whole_split(tmp_path_factory.mktemp("fastmri")).parent


@pytest.fixture
def ixi(tmp_path):
    """Function that makes a folder of IXI subjects, half of them in training and half in test."""

    def make(subjects, name="ixi"):
        folder = tmp_path / name
        affine = np.diag([1.0, 1.0, 5.0, 1.0])
        one = save_scan(folder / "one.nii.gz", lambda: (pictures()[0], affine), space="mni")
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
    items = load_sections(datalist)
    of_ixi = {
        section: sum(item["subject"].startswith("IXI") for item in found)
        for section, found in items.items()
    }
    assert of_ixi == {"training": 581, "validation": 0, "test": 0}
    assert [len(items[section]) for section in of_ixi] == [712, 15, 165]
    original = load_datalist(fastmri / "datalist.json", "test")
    assert [item | {"image": 0} for item in items["test"]] == [
        item | {"image": 0} for item in original
    ]
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
