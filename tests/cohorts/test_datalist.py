"""Datalists: paths, checks, writing, and the lists that the package carries."""

import json
import runpy
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from pathology_screen.cohorts import load_datalist, resolve_dataset
from pathology_screen.cohorts import phantom as phantom_module
from pathology_screen.cohorts.datalist import SECTIONS, load_sections, read_notes, write_datalist
from pathology_screen.cohorts.preparation import listed
from pathology_screen.errors import ConfigError

LISTS = Path(__file__).parents[2] / "data_lists"
OASIS, IXI_SLICES = LISTS / "oasis.json", LISTS / "ixi_slices.json"


def item(number, **more):
    return {"image": f"sub-{number}.nii.gz", "subject": f"s{number}", **more}


@pytest.fixture
def write(tmp_path):
    """Write a datalist, and two empty images beside it."""

    def write(content):
        for number in (1, 2):
            (tmp_path / f"sub-{number}.nii.gz").touch()
        path = tmp_path / "list.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_images_are_relative_to_the_datalist_or_to_base_dir(tmp_path, monkeypatch):
    elsewhere, path = tmp_path / "data", tmp_path / "list.json"
    elsewhere.mkdir()
    (elsewhere / "sub-1.nii.gz").touch()
    path.write_text(json.dumps({"training": [item(1)]}))
    with pytest.raises(ConfigError, match=r"sub-1\.nii\.gz"):
        load_datalist(path, "training")
    expected = [item(1) | {"image": str(elsewhere / "sub-1.nii.gz")}]
    assert load_datalist(path, "training", base_dir=elsewhere) == expected
    assert resolve_dataset(elsewhere, path, section="training") == expected
    with pytest.raises(ConfigError, match=r"datalist\.json"):
        resolve_dataset(elsewhere, section="training")
    path.rename(elsewhere / "datalist.json")
    assert resolve_dataset(elsewhere, section="training") == expected
    monkeypatch.chdir(tmp_path)
    (relative,) = resolve_dataset("data", "", section="training")
    assert relative["image"] == "data/sub-1.nii.gz"


def test_without_arguments_the_phantom_is_the_dataset(phantom, monkeypatch):
    monkeypatch.setattr(phantom_module, "make_phantom_cohort", lambda: phantom)
    assert resolve_dataset(section="test") == load_datalist(phantom, "test")
    assert len(resolve_dataset("", "", section="training")) == 2


def test_plain_names_other_values_empty_sections_and_two_sessions_are_welcome(write, tmp_path):
    """A value stays what it is even where there is a file of that name."""
    (tmp_path / "mass").touch()
    path = write({"a": ["sub-1.nii.gz"], "b": [], "c": [item(2, pathology="mass", age=3)]})
    (plain,), (other,) = load_datalist(path, "a"), load_datalist(path, "c")
    assert plain["subject"] == "sub-1.nii.gz"
    assert (other["subject"], other["pathology"], other["age"]) == ("s2", "mass", 3)
    assert [(name, len(of)) for name, of in load_sections(path).items()] == [*zip("abc", (1, 0, 1))]
    assert len(load_datalist(write({"a": [item(1), item(2, subject="s1")]}), "a")) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": [item(1)], "test": [item(2, subject="s1")]}, "subject s1 .*training.*test"),
        ({"training": ["sub-1.nii.gz"], "x": [item(3, subject="sub-1.nii.gz")]}, "sub-1"),
        ({"training": [item(1)], "x": [{"image": "sub-1.nii.gz"}]}, "to two subjects"),
        ({"training": [item(1), item(1)]}, "sub-1.nii.gz 2 times"),
        ({"training": [{"subject": "s1"}]}, "no image"),
        ({"training": [3]}, "no image"),
        ({"training": [item(1, label="mask.nii.gz")]}, r"mask\.nii\.gz"),
        ({"validation": [item(1)]}, "no section"),
        *(([1], "not a JSON object"), ("{", "not JSON"), (None, "list.json does not exist")),
    ],
)
def test_inconsistent_datalists_are_refused(write, tmp_path, content, message):
    if content is not None:
        write(content)
    with pytest.raises(ConfigError, match=message):
        load_datalist(tmp_path / "list.json", "training")


def test_a_bad_datalist_does_not_take_the_place_of_a_good_one(write, tmp_path):
    write({}).unlink()
    sections = {"training": [item(1)], "test": [item(2)]}
    path = write_datalist(tmp_path, sections, "two", notes={"odd": ["a"], "nothing": []})
    before = json.loads(path.read_text())
    assert before["description"] == "two" and before["modality"] == {"0": "T1w"}
    assert read_notes(path) == {"odd": ["a"]}
    for items in (
        {"training": [item(1)], "test": [item(2, subject="s1")]},
        {"training": [item(3)]},
        {"training": [{"image": "sub-1.nii.gz"}] * 2},
    ):
        with pytest.raises(ConfigError, match=r"^datalist\.json "):
            write_datalist(tmp_path, items, "wrong")
    assert json.loads(path.read_text()) == before
    assert not list(tmp_path.glob(".*"))


def test_oasis_list_splits_by_subject():
    content = json.loads(OASIS.read_text())
    entries = [entry for section in SECTIONS for entry in content[section]]
    assert [len(content[section]) for section in SECTIONS] == [48, 4, 20, 22]
    assert len({entry["subject"] for entry in entries}) == len(entries) == 94
    assert all(entry["image"] == f"sub-{entry['subject']}_T1w.nii.gz" for entry in entries)
    ill = {entry["pathology"] for entry in content["test"] if entry["subject"] < "N"}
    assert ill == {"mild dementia"}


def test_ixi_slices_are_split_by_person_and_every_site_has_its_share():
    content = json.loads(IXI_SLICES.read_text())
    sites = [Counter(entry["site"] for entry in content[section]) for section in SECTIONS]
    assert sites == [
        {"Guys": 244, "HH": 133, "IOP": 44},
        {"Guys": 12, "HH": 6, "IOP": 2},
        {"Guys": 23, "HH": 13, "IOP": 4},
        {"Guys": 23, "HH": 13, "IOP": 4},
    ]
    everyone = [entry for section in SECTIONS for entry in content[section]]
    people = {entry["subject"] for entry in everyone}
    assert len(people) == 521 and people < {row["subject"] for row in listed("ixi.csv")}
    assert {"IXI012", "IXI015"} < {entry["subject"] for entry in content["test"]}
    assert all(entry["image"] == f"sub-{entry['subject']}_T1w.png" for entry in everyone)
    assert all(entry["axial_slice"] and entry["axes"] == "PRS" for entry in everyone)
    healthy = [entry for entry in everyone if entry.get("pathology") == "healthy"]
    assert healthy == content["test"]


@pytest.mark.needs_shared
def test_the_lists_find_their_scans_and_ixi_is_drawn_by_its_script(shared_data):
    assert len(resolve_dataset(shared_data / "oasis", OASIS, section="test")) == 22
    slices = shared_data / "ixi_slices"
    made = runpy.run_path(str(LISTS / "make_ixi_slices.py"))
    drawn = made["draw"](pd.read_csv(slices / "participants.tsv", sep="\t"))
    for section in SECTIONS:
        entries = resolve_dataset(slices, IXI_SLICES, section=section)
        people = {person for person in drawn if drawn[person] == section}
        assert {entry["subject"] for entry in entries} == people
