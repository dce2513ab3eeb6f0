"""The command `pathology-screen prepare`, as a person uses it."""

import inspect
import json
from functools import partial
from importlib import import_module

import pytest
from fastmri_builder import pictures, write_annotations, write_hdf5

from pathology_screen.cli import _parser, main
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.cohorts.preparation import listed

NORMAL, LOCAL = "file_brain_AXT1_201_6002699", "file_brain_AXT1_202_2020486"


@pytest.fixture
def fastmri(tmp_path):
    """Prepare two files of fastMRI into `tmp_path/out`."""
    for number, name in enumerate((NORMAL, LOCAL)):
        write_hdf5(tmp_path / f"source/{name}.h5", pictures(number))
    boxes = [(LOCAL, 2, 1, 2, 4, 3, "Edema"), (LOCAL, 3, 1, 2, 4, 3, "Mass")]
    table = write_annotations(tmp_path / "brain.csv", boxes)
    options = ("--annotations", table, "--output", tmp_path / "out")
    return lambda *more: run("fastmri", tmp_path / "source", *options, *more)


def run(*arguments):
    return main(["prepare", *map(str, arguments)])


def test_fastmri(fastmri, tmp_path, capsys):
    assert fastmri() == 1
    error = capsys.readouterr().err
    assert "error: 309 of the 311 files" in error and "--allow-missing" in error
    assert not (tmp_path / "out").exists()
    assert fastmri("--allow-missing") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["section", "group", "images", "subjects", "boxes"],
        ["training", "normal", "1", "1", "0"],
        ["test", "local", "1", "1", "1"],
    ]
    sheet = tmp_path / "out/contact_sheet.png"
    assert lines[-2:] == [f"datalist: {tmp_path / 'out/datalist.json'}", f"look at:  {sheet}"]
    assert sheet.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("slices", "pathology"), [("table", "edema"), ("3", "mass")])
def test_slices_of_fastmri(fastmri, tmp_path, slices, pathology):
    assert fastmri("--allow-missing", "--slices", slices) == 0
    (item,) = json.loads((tmp_path / "out/datalist.json").read_text())["test"]
    assert item["pathology"] == pathology


def test_paper(fastmri, tmp_path, capsys):
    assert fastmri("--allow-missing") == 0
    (item,) = json.loads((tmp_path / "out/datalist.json").read_text())["training"]
    ixi = tmp_path / "out/ixi.json"
    ixi.write_text(json.dumps({"training": [item | {"subject": listed("ixi.csv")[0]["subject"]}]}))
    options = ("--fastmri", tmp_path / "out", "--ixi", ixi, "--output", tmp_path / "paper")
    assert run("paper", *options) == 1
    assert "580 of the 581 subjects" in capsys.readouterr().err
    assert run("paper", *options, "--allow-missing") == 1  # one image of two subjects
    assert "error: datalist.json names" in capsys.readouterr().err
    assert not (tmp_path / "paper/datalist.json").exists()


def test_phantom(tmp_path, monkeypatch, capsys):
    few = {"training": 1, "validation": 0, "calibration": 0, "healthy": 0, "lesions": 1}
    small = partial(make_phantom_cohort, **few)
    monkeypatch.setattr("pathology_screen.cohorts.make_phantom_cohort", small)
    assert run("phantom", "--output", tmp_path) == 0
    out = capsys.readouterr().out
    assert "hypointense lesion" in out and "training" in out
    assert len(list(tmp_path.glob("phantom-2-*/contact_sheet.png"))) == 1


SPLIT = "--fractions .5 .1 .2 .2 --seed 1 --exclude 01 --output O"
EVERYTHING = [
    "fastmri SOURCE --annotations A --slices 3 --allow-missing --output O",
    f"ixi SOURCE --no-registration --n4 --domain brain_extracted --workers 2 {SPLIT}",
    "paper --fastmri F --ixi I --allow-missing --output O",
    "folder SOURCE --split S --group-column dx --healthy HC none --subject-pattern P "
    f"--scan-pattern P --no-check {SPLIT}",
    "phantom --output O --extracted",
]


@pytest.mark.parametrize("arguments", EVERYTHING, ids=lambda arguments: arguments.split()[0])
def test_options_are_the_parameters_of_the_function_and_their_defaults_are_its_own(arguments):
    words = arguments.split()
    options = vars(_parser().parse_args(["prepare", *words]))
    module, _, function = options["made_by"].partition(":")
    parameters = inspect.signature(getattr(import_module(module), function)).parameters
    given = options.keys() - {"made_by", "command"}
    assert given <= parameters.keys()
    needed = {name for name in parameters if parameters[name].default is inspect.Parameter.empty}
    assert needed <= given  # and every other option changes something
    assert all(options[name] != parameters[name].default for name in given - needed)
    required = ["SOURCE"] if "SOURCE" in words else []
    for word in ("--annotations", "--fastmri", "--ixi", "--output"):
        if word in words and words[0] != "phantom":
            required += [word, "x"]
    bare = vars(_parser().parse_args(["prepare", words[0], *required]))
    assert bare.keys() - {"made_by", "command"} == needed
