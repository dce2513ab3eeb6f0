"""The command `pathology-screen`, as a person uses it."""

import inspect
import json
import os
import subprocess
import sys
from functools import partial
from importlib import import_module

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from fastmri_builder import pictures, write_annotations, write_hdf5
from monai.bundle import ConfigParser
from released_checkpoint_builder import released_state

from pathology_screen import __version__
from pathology_screen.bundles import bundle_root
from pathology_screen.calibration import Calibration
from pathology_screen.catalogue import catalogue
from pathology_screen.cli import NOT_ASSESSABLE, _parser, main
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.cohorts.preparation import listed
from pathology_screen.files import sha256
from pathology_screen.networks.introspective_vae import IntrospectiveVAE
from pathology_screen.networks.released_checkpoint import NETWORK, convert_released_state
from pathology_screen.registry import METHODS
from pathology_screen.space import Fit


@pytest.fixture
def run(capsys):
    """Run a command and give what it prints; of one that fails, the one line that it says."""

    def run(*arguments, status=0):
        assert main([str(argument) for argument in arguments]) == status
        out, err = capsys.readouterr()
        if status == 1:
            assert out == "" and err.startswith("error: ") and err.count("\n") == 1
        return err if status == 1 else out

    return run


def test_info_lists_every_method_at_once():
    code = (
        "import sys; from pathology_screen.cli import main; status = main(['info'])\n"
        "print({'torch', 'monai', 'numpy'} & sys.modules.keys(), file=sys.stderr); sys.exit(status)"
    )
    took = []
    for _ in range(3):  # the best of three, of the processor's time, for the machine may be busy
        start = os.times()
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        took.append(sum(os.times()[2:4]) - sum(start[2:4]))
    assert min(took) < 0.5 and result.stderr == "set()\n"
    for method in METHODS.values():
        assert f"{method.name}: {method.title}" in result.stdout and method.paper in result.stdout
        assert method.is_control or str(bundle_root(method.name)) in result.stdout
    assert "29,430,785 (paper profile)" in result.stdout


def test_info_and_inspect_for_programs(slices, tmp_path, run):
    assert json.loads(run("info", "--json")) == json.loads(json.dumps(catalogue()))
    (tmp_path / "a.png").write_bytes(slices[1].read_bytes())
    (tmp_path / "b.nii.gz").write_bytes(b"")
    printed = run("inspect", tmp_path / "a.png", "--json")
    printed += run("inspect", tmp_path / "b.nii.gz", "--json", status=NOT_ASSESSABLE)
    accepted, refused = map(json.loads, printed.splitlines())
    assert accepted["accepted"] and not refused["accepted"]
    assert [finding["code"] for finding in accepted["findings"]] == ["not_registered"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("--version", 0, __version__),
        ("--help", 0, "usage"),
        ("", 2, "usage"),
        ("diagnose", 2, "usage"),
        ("screen x -o y --plane-mm top", 2, "'top' is not a number of millimetres"),
        ("screen x -o y --plane-mm nan", 2, "'nan' is not a number of millimetres"),
        ("screen x -o y --plane-mm inf", 2, "'inf' is not a number of millimetres"),
        ("prepare", 2, "usage"),
        ("prepare fastmri x --output y", 2, "usage"),
        ("prepare paper --output y", 2, "usage"),
    ],
)
def test_what_is_no_command_ends_with_its_usage(arguments, status, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == status and said in capsys.readouterr()[status > 0]


def test_phantom_makes_a_cohort_and_says_where(tmp_path, monkeypatch, run):
    make = lambda output, extracted: output / f"extracted-{extracted}.json"  # noqa: E731
    monkeypatch.setattr("pathology_screen.cohorts.make_phantom_cohort", make)
    made = run("phantom", "--output", tmp_path, "--extracted")
    assert made == f"{tmp_path / 'extracted-True.json'}\n"


def test_inspect_needs_no_weights(slices, tmp_path, monkeypatch, run):
    monkeypatch.setattr("pathology_screen.predictor.load_weights", None)
    printed = run("inspect", slices[1])
    assert ": accepted\n" in printed and "warning     [not_registered]" in printed
    assert "png" in printed
    broken = nib.Nifti1Image(np.full((8, 8, 8), np.nan, np.float32), np.eye(4))
    nib.save(broken, tmp_path / "broken.nii.gz")
    assert "[not_finite]" in run("inspect", tmp_path, status=NOT_ASSESSABLE)


def test_inspect_shows_how_a_head_fits_the_template(tmp_path, monkeypatch, run):
    """With the registration that `space` tests left out."""
    head = np.pad(np.random.default_rng(0).uniform(50, 90, (60, 70, 60)), 20).astype(np.float32)
    nib.save(nib.Nifti1Image(head, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "head.nii.gz")
    planes = []

    def take(scan, affine, to_scan, z_mm):
        planes.append(z_mm)
        return np.tile(np.linspace(20, 90, 233, dtype=np.float32)[:, None], (1, 197))

    fit = Fit(dice=0.91, correlation=0.5)
    for place, replacement in {
        "transforms.standard_plane.find_brain": lambda scan, affine: (scan > 0, False),
        "transforms.standard_plane.register": lambda *scan: (np.eye(4), fit),
        "transforms.standard_plane.take_plane": take,
        "screening.screener.brain_findings": lambda *brain: [],
    }.items():
        monkeypatch.setattr(f"pathology_screen.{place}", replacement)
    printed = run("inspect", tmp_path / "head.nii.gz", "--plane-mm", "-5.5")
    assert "    fit         dice 0.910, correlation 0.500\n" in printed and set(planes) == {-5.5}


def test_a_single_slice_is_screened_by_the_command(
    slices, make_screener, tmp_path, monkeypatch, run
):
    monkeypatch.setattr("pathology_screen.cli._screener", lambda options: make_screener())
    assert "look at: " in run("screen", slices[1], "-o", tmp_path / "out")
    (row,) = pd.read_csv(tmp_path / "out/scores.csv").itertuples()
    assert row.outcome in ("normal", "suspicious") and row.score > 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "best_model.pt"
    torch.save({"model_weights": released_state(), "epoch": 3}, path)
    return path


def test_an_imported_checkpoint_is_the_network_of_the_bundle(checkpoint, tmp_path, run):
    output = tmp_path / "imported"
    printed = run("import-checkpoint", checkpoint, "--output", output)
    assert str(output / "network.json") in printed
    assert {path.name for path in output.iterdir()} == {"model.pt", "network.json"}
    configs = [bundle_root("ra") / "configs" / name for name in ("train.json", "paper.json")]
    parser = ConfigParser(ConfigParser.load_config_files([*configs, output / "network.json"]))
    parser["device"] = "cpu"
    network = parser.get_parsed_content("network").eval()
    expected = IntrospectiveVAE(**NETWORK).eval()
    expected.load_state_dict(convert_released_state(released_state()))
    x = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected(x), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_that_does_not_fit_is_refused_and_nothing_is_written(
    checkpoint, tmp_path, run
):
    output, path = tmp_path / "imported", tmp_path / "other.pt"
    command = ("import-checkpoint", path, "--output", output)
    assert "other.pt" in run(*command, status=1)
    path.write_text("not a checkpoint")
    assert "other.pt" in run(*command, status=1)
    short = released_state()
    del short["encoder.fc.bias"]
    torch.save(short, path)
    assert "encoder.fc.bias" in run(*command, status=1)
    torch.save(released_state() | {"decoder.main.predict.bias": torch.zeros(3)}, path)
    assert "size mismatch" in run(*command, status=1)
    assert not output.exists() or not list(output.iterdir())
    assert "other.pt" in run("import-checkpoint", checkpoint, "--output", path, status=1)


def test_publish(tmp_path, run):
    source, bundle = tmp_path / "run", tmp_path / "bundle"
    for folder in (source, bundle / "configs"):
        folder.mkdir(parents=True)
    (bundle / "configs" / "metadata.json").write_text("{}")
    command, options = ("publish", source, "--bundle"), ("--made-by", "monai.bundle run training")
    assert "model.pt" in run(*command, bundle, *options, status=1)
    assert "bundles here" in run(*command, tmp_path / "none", *options, status=1)
    (source / "model.pt").write_bytes(b"weights")
    (source / "log.csv").write_text("epoch\n1\n")
    identity = {"weights_sha256": sha256(source / "model.pt")}
    Calibration(0.1, 0.05, {}, (0.5,), (0,), identity).save(source / "calibration.json")
    assert run(*command, bundle, *options) == f"{(bundle / 'models').resolve()}\n"
    assert json.loads((bundle / "models/origin.json").read_text())["made_by"] == options[1]


# --- prepare ---

NORMAL, LOCAL = "file_brain_AXT1_201_6002699", "file_brain_AXT1_202_2020486"


@pytest.fixture
def fastmri(tmp_path, run):
    """Function that prepares two files of fastMRI into `tmp_path/out`; gives what `run` does."""
    for number, name in enumerate((NORMAL, LOCAL)):
        write_hdf5(tmp_path / f"source/{name}.h5", pictures(number))
    boxes = [(LOCAL, 2, 1, 2, 4, 3, "Edema"), (LOCAL, 3, 1, 2, 4, 3, "Mass")]
    table = write_annotations(tmp_path / "brain.csv", boxes)
    options = ("--annotations", table, "--output", tmp_path / "out")
    command = ("prepare", "fastmri", tmp_path / "source", *options)
    return lambda *more, **status: run(*command, *more, **status)


def test_prepare_fastmri(fastmri, tmp_path):
    error = fastmri(status=1)
    assert "error: 309 of the 311 files" in error and "--allow-missing" in error
    assert not (tmp_path / "out").exists()
    lines = fastmri("--allow-missing").splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["section", "group", "images", "subjects", "boxes"],
        ["training", "normal", "1", "1", "0"],
        ["test", "local", "1", "1", "1"],
    ]
    sheet = tmp_path / "out/contact_sheet.png"
    assert lines[-2:] == [f"datalist: {tmp_path / 'out/datalist.json'}", f"look at:  {sheet}"]
    assert sheet.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("slices", "pathology"), [("table", "edema"), ("3", "mass")])
def test_prepare_slices_of_fastmri(fastmri, tmp_path, slices, pathology):
    fastmri("--allow-missing", "--slices", slices)
    (item,) = json.loads((tmp_path / "out/datalist.json").read_text())["test"]
    assert item["pathology"] == pathology


def test_prepare_paper(fastmri, tmp_path, run):
    fastmri("--allow-missing")
    (item,) = json.loads((tmp_path / "out/datalist.json").read_text())["training"]
    ixi = tmp_path / "out/ixi.json"
    ixi.write_text(json.dumps({"training": [item | {"subject": listed("ixi.csv")[0]["subject"]}]}))
    command = ("prepare", "paper", "--fastmri", tmp_path / "out", "--ixi", ixi)
    command += ("--output", tmp_path / "paper")
    assert "580 of the 581 subjects" in run(*command, status=1)
    error = run(*command, "--allow-missing", status=1)  # one image of two subjects
    assert "error: datalist.json names" in error
    assert not (tmp_path / "paper/datalist.json").exists()


def test_prepare_phantom(tmp_path, monkeypatch, run):
    few = {"training": 1, "validation": 0, "calibration": 0, "healthy": 0, "lesions": 1}
    small = partial(make_phantom_cohort, **few)
    monkeypatch.setattr("pathology_screen.cohorts.make_phantom_cohort", small)
    out = run("prepare", "phantom", "--output", tmp_path)
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
def test_options_of_prepare_are_the_parameters_of_the_function_and_their_defaults_are_its_own(
    arguments,
):
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
