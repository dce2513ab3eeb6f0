"""Datalists: paths, checks, and one item a level."""

import json
import runpy
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pathology_screen.cohorts import datalist as module
from pathology_screen.cohorts import load_datalist, resolve_dataset
from pathology_screen.cohorts.preparation import listed
from pathology_screen.errors import ConfigError

LISTS = Path(__file__).parents[2] / "data_lists"
OASIS, IXI_SLICES = LISTS / "oasis.json", LISTS / "ixi_slices.json"


@pytest.fixture
def write(tmp_path):
    """Write a datalist, and a small NIfTI file for every image that it names."""

    def write(content, files=True, folder=tmp_path):
        for items in content.values():
            for item in items if files and isinstance(items, list) else []:
                name = item if isinstance(item, str) else item["image"]
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                nib.save(
                    nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.diag([1, 1, 5, 1])),
                    folder / name,
                )
        path = tmp_path / "list.json"
        path.write_text(json.dumps(content))
        return path

    return write


def item(number, **more):
    return {"image": f"sub-{number}.nii.gz", "subject": f"s{number}", **more}


def test_phantom_sections_load(phantom):
    training, test = load_datalist(phantom, "training"), load_datalist(phantom, "test")
    assert [len(training), len(test)] == [2, 6]
    assert all(Path(entry["image"]).is_file() for entry in training)
    assert all(Path(entry["label"]).is_file() for entry in test)
    assert test[0]["pathology"] == "healthy"


def test_images_are_relative_to_the_datalist_or_to_base_dir(write, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    path = write({"training": [item(1)]}, folder=elsewhere)
    with pytest.raises(ConfigError, match=r"sub-1\.nii\.gz"):
        load_datalist(path, "training")
    (entry,) = load_datalist(path, "training", base_dir=elsewhere)
    assert Path(entry["image"]) == elsewhere / "sub-1.nii.gz"


def test_other_values_are_kept_even_where_a_file_of_that_name_exists(write, tmp_path):
    (tmp_path / "s1").mkdir()
    (tmp_path / "mass").touch()
    path = write({"test": [item(1, pathology="mass", age=3)]})
    (entry,) = load_datalist(path, "test")
    assert (entry["subject"], entry["pathology"], entry["age"]) == ("s1", "mass", 3)


def test_plain_file_names_are_items(write):
    path = write({"test": ["sub-1.nii.gz", "sub-2.nii.gz"]})
    assert [Path(entry["image"]).name for entry in load_datalist(path, "test")] == [
        "sub-1.nii.gz",
        "sub-2.nii.gz",
    ]


def test_empty_section_is_empty(write):
    assert load_datalist(write({"test": [], "training": [item(1)]}), "test") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": [item(1)], "test": [item(2, subject="s1")]}, "subject s1 .*training.*test"),
        (
            {
                "training": [item(1)],
                "test": [{"image": "sub-1.nii.gz"}],
                "x": [item(3, subject="sub-1.nii.gz")],
            },
            "sub-1",
        ),
        ({"training": [item(1), item(1)]}, "sub-1.nii.gz 2 times"),
        ({"training": [{"subject": "s1"}]}, "no image"),
        ({"validation": [item(1)]}, "no section"),
    ],
)
def test_inconsistent_datalists_are_refused(write, content, message):
    with pytest.raises(ConfigError, match=message):
        load_datalist(write(content, files=False), "training")


def test_two_sessions_of_a_subject_in_one_section_are_welcome(write):
    path = write({"training": [item(1), item(2, subject="s1")]})
    assert len(load_datalist(path, "training")) == 2


def test_missing_label_is_named(write):
    path = write({"test": [item(1, label="mask.nii.gz")]})
    with pytest.raises(ConfigError, match=r"mask\.nii\.gz"):
        load_datalist(path, "test")


@pytest.mark.parametrize("text", ["{", "[1]", '{"training": [3]}'])
def test_what_is_no_datalist_is_refused(tmp_path, text):
    path = tmp_path / "list.json"
    with pytest.raises(ConfigError, match="does not exist"):
        load_datalist(path, "training")
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_datalist(path, "training")


def test_without_arguments_the_phantom_is_the_dataset(phantom, monkeypatch):
    monkeypatch.setattr(module, "make_phantom_cohort", lambda: phantom)
    assert resolve_dataset(section="test") == load_datalist(phantom, "test")
    assert len(resolve_dataset("", "", section="training")) == 2


def test_users_datalist_and_folder(write, tmp_path):
    folder = tmp_path / "data"
    path = write({"training": [item(1)]}, folder=folder)
    expected = str(folder / "sub-1.nii.gz")
    assert resolve_dataset(folder, path, section="training")[0]["image"] == expected
    with pytest.raises(ConfigError, match=r"datalist\.json"):
        resolve_dataset(folder, section="training")
    path.rename(folder / "datalist.json")
    assert resolve_dataset(folder, section="training")[0]["image"] == expected


def test_oasis_list_splits_by_subject():
    content = json.loads(OASIS.read_text())
    ids = {
        name: [entry["subject"] for entry in content[name]]
        for name in content
        if isinstance(content[name], list)
    }
    assert [len(ids[name]) for name in ("training", "validation", "calibration", "test")] == [
        48,
        4,
        20,
        22,
    ]
    everyone = [subject for subjects in ids.values() for subject in subjects]
    assert len(set(everyone)) == len(everyone) == 94
    assert all(
        entry["image"] == f"sub-{entry['subject']}_T1w.nii.gz"
        for name in ids
        for entry in content[name]
    )
    assert {entry["pathology"] for entry in content["test"] if entry["subject"] < "N"} == {
        "mild dementia"
    }


def test_ixi_slices_are_split_by_person_and_every_site_has_its_share():
    content = json.loads(IXI_SLICES.read_text())
    sections = {name: entries for name, entries in content.items() if isinstance(entries, list)}
    sites = {
        name: Counter(entry["site"] for entry in entries) for name, entries in sections.items()
    }
    assert sites == {
        "training": {"Guys": 244, "HH": 133, "IOP": 44},
        "validation": {"Guys": 12, "HH": 6, "IOP": 2},
        "calibration": {"Guys": 23, "HH": 13, "IOP": 4},
        "test": {"Guys": 23, "HH": 13, "IOP": 4},
    }
    everyone = [entry for entries in sections.values() for entry in entries]
    people = {entry["subject"] for entry in everyone}
    assert len(people) == 521 and people < {row["subject"] for row in listed("ixi.csv")}
    assert {"IXI012", "IXI015"} < {entry["subject"] for entry in content["test"]}
    assert all(entry["image"] == f"sub-{entry['subject']}_T1w.png" for entry in everyone)
    assert all(entry["axial_slice"] and entry["axes"] == "PRS" for entry in everyone)
    assert all(
        entry.get("pathology") == ("healthy" if entry in content["test"] else None)
        for entry in everyone
    )


@pytest.mark.needs_shared
def test_ixi_slices_are_drawn_by_their_script_and_found(shared_data):
    made = runpy.run_path(str(LISTS / "make_ixi_slices.py"))
    drawn = made["draw"](pd.read_csv(shared_data / "ixi_slices" / "participants.tsv", sep="\t"))
    for section in set(drawn.values()):
        entries = resolve_dataset(shared_data / "ixi_slices", IXI_SLICES, section=section)
        assert {entry["subject"] for entry in entries} == {
            person for person in drawn if drawn[person] == section
        }


@pytest.mark.needs_shared
def test_oasis_list_finds_its_scans(shared_data):
    assert len(resolve_dataset(shared_data / "oasis", OASIS, section="test")) == 22
