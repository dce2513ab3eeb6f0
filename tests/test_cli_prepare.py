"""The command `pathology-screen prepare`, as a person uses it."""

import inspect
import json
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from fastmri_builder import pictures, write_annotations, write_hdf5

from pathology_screen.cli import _parser, main
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.cohorts.datalist import write_datalist
from pathology_screen.cohorts.preparation import listed, save_scan

NORMAL, LOCAL = "file_brain_AXT1_201_6002699", "file_brain_AXT1_202_2020486"


@pytest.fixture
def source(tmp_path):
    """Folder of two files of fastMRI, with the annotations beside it."""
    for number, name in enumerate((NORMAL, LOCAL)):
        write_hdf5(tmp_path / f"source/{name}.h5", pictures(number))
    write_annotations(
        tmp_path / "brain.csv", [(LOCAL, 2, 1, 2, 4, 3, "Edema"), (LOCAL, 3, 1, 2, 4, 3, "Mass")]
    )
    return tmp_path / "source"


def run(*arguments):
    return main(["prepare", *map(str, arguments)])


def test_fastmri(source, tmp_path, capsys):
    options = (
        "fastmri",
        source,
        "--annotations",
        tmp_path / "brain.csv",
        "--output",
        tmp_path / "out",
    )
    assert run(*options) == 1
    error = capsys.readouterr().err
    assert "error: 309 of the 311 files" in error and "--allow-missing" in error
    assert not (tmp_path / "out").exists()
    assert run(*options, "--allow-missing") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["section", "group", "images", "subjects", "boxes"],
        ["training", "normal", "1", "1", "0"],
        ["test", "local", "1", "1", "1"],
    ]
    assert lines[-2:] == [
        f"datalist: {tmp_path / 'out/datalist.json'}",
        f"look at:  {tmp_path / 'out/contact_sheet.png'}",
    ]
    assert (tmp_path / "out/contact_sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("slices", "pathology"), [("table", "edema"), ("3", "mass")])
def test_slices_of_fastmri(source, tmp_path, slices, pathology):
    options = (
        "--annotations",
        tmp_path / "brain.csv",
        "--output",
        tmp_path / "out",
        "--allow-missing",
    )
    assert run("fastmri", source, *options, "--slices", slices) == 0
    (item,) = json.loads((tmp_path / "out/datalist.json").read_text())["test"]
    assert item["pathology"] == pathology


def test_paper(source, tmp_path, capsys):
    options = (
        "--annotations",
        tmp_path / "brain.csv",
        "--output",
        tmp_path / "fastmri",
        "--allow-missing",
    )
    assert run("fastmri", source, *options) == 0
    subject = listed("ixi.csv")[0]["subject"]
    content = json.loads((tmp_path / "fastmri/datalist.json").read_text())
    ixi = {"training": [{**content["training"][0], "subject": subject}]}
    (tmp_path / "fastmri/ixi.json").write_text(json.dumps(ixi))
    options = (
        "--fastmri",
        tmp_path / "fastmri",
        "--output",
        tmp_path / "paper",
        "--ixi",
        tmp_path / "fastmri/ixi.json",
    )
    capsys.readouterr()
    assert run("paper", *options) == 1
    assert "580 of the 581 subjects" in capsys.readouterr().err
    assert run("paper", *options, "--allow-missing") == 1  # one image of two subjects
    assert "error: datalist.json names" in capsys.readouterr().err
    assert not (tmp_path / "paper/datalist.json").exists()


def test_phantom(tmp_path, monkeypatch, capsys):
    small = partial(
        make_phantom_cohort, training=1, validation=0, calibration=0, healthy=0, lesions=1
    )

    monkeypatch.setattr("pathology_screen.cohorts.make_phantom_cohort", small)
    assert run("phantom", "--output", tmp_path) == 0
    out = capsys.readouterr().out
    assert "hypointense lesion" in out and "training" in out
    assert len(list(tmp_path.glob("phantom-2-*/contact_sheet.png"))) == 1


@pytest.mark.parametrize(
    "arguments", [(), ("oasis",), ("fastmri", "x", "--output", "y"), ("paper", "--output", "y")]
)
def test_what_is_no_cohort_ends_with_usage(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2 and "usage" in capsys.readouterr().err


EVERYTHING = [
    "fastmri SOURCE --annotations A --slices 3 --allow-missing --output O",
    "ixi SOURCE --no-registration --n4 --domain brain_extracted --fractions .5 .1 .2 .2 --seed 1 --exclude IXI002 "
    "--workers 2 --output O",
    "paper --fastmri F --ixi I --allow-missing --output O",
    "folder SOURCE --split S --group-column dx --healthy HC none --subject-pattern P --scan-pattern P --no-check "
    "--fractions .5 .1 .2 .2 --seed 1 --exclude 01 --output O",
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
    needed = {
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
    }
    assert needed <= given
    differ = [name for name in given - needed if options[name] == parameters[name].default]
    assert not differ  # every option changes something
    short = [word for word in ("SOURCE", "--annotations", "--fastmri", "--ixi") if word in words]
    required = [part for word in short for part in ([word] if word == "SOURCE" else [word, "x"])]
    required += [] if words[0] == "phantom" else ["--output", "O"]
    bare = vars(_parser().parse_args(["prepare", words[0], *required]))
    assert bare.keys() - {"made_by", "command"} == needed


def test_what_the_function_made_is_summed_up(tmp_path, monkeypatch, capsys):
    image = tmp_path / "a.nii.gz"
    save_scan(image, lambda: (pictures(), np.diag([5.0, 1, 1, 1])))
    datalist = write_datalist(tmp_path, {"training": [{"image": image.name}]}, "one")
    made = []
    module = SimpleNamespace(prepare_folder=lambda **options: made.append(options) or datalist)
    monkeypatch.setattr(
        "pathology_screen.cli.import_module", {"pathology_screen.cohorts.folder": module}.get
    )
    assert run("folder", tmp_path, "--output", tmp_path, "--healthy", "HC", "x", "--no-check") == 0
    assert made == [
        {"source": tmp_path, "output": tmp_path, "healthy": ["HC", "x"], "check": False}
    ]
    assert str(tmp_path / "contact_sheet.png") in capsys.readouterr().out
