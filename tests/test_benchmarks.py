"""The commands that train all bundles and write the benchmark page."""

import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from slice_cohort import make_slice_cohort
from torch import nn

from pathology_screen.bundles import read_settings
from pathology_screen.experiments import models, report
from pathology_screen.experiments.report import Comparison, Measurements, Report, Row
from pathology_screen.metrics import pooled_mean
from pathology_screen.networks.controls import PrincipalComponents
from pathology_screen.predictor import build_network

ROOT = Path(__file__).resolve().parents[1]
METHODS = ["ra", "vae", "template", "principal_components", "intensity"]


def script(name):
    """A script of `benchmarks/` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- training ---


@pytest.fixture
def train_all(monkeypatch):
    """The script, which notes its commands in `commands`, and what it publishes in `published`, and
    does neither."""
    module = script("train_all")
    module.commands, module.published = [], []
    monkeypatch.setattr(
        module.subprocess, "run", lambda words, **options: module.commands.append(words)
    )
    monkeypatch.setattr(module, "publish", lambda *arguments: module.published.append(arguments))
    return module


def test_finished_runs_are_passed_over_and_the_others_trained_by_their_documented_command(
    train_all, tmp_path
):
    (tmp_path / "runs/vae").mkdir(parents=True)
    (tmp_path / "runs/vae/calibration.json").touch()
    train_all.main(["--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "runs")])
    trained = [Path(words[-1]).name for words in train_all.commands]
    assert (
        trained == [name for name in train_all.BUNDLES if name != "vae"] and not train_all.published
    )
    words = train_all.commands[0][1:]
    assert words[:4] == ["-m", "monai.bundle", "run", "training"]
    assert words[5] == "['bundles/ra/configs/train.json','bundles/ra/configs/ship.json']"
    assert words[6:] == [
        *("--dataset_dir", str(tmp_path), "--datalist", str(ROOT / "data_lists/ixi_slices.json")),
        *("--output_dir", str(tmp_path / "runs/ra")),
    ]


def test_published_weights_name_their_command_without_paths_of_the_machine(train_all, tmp_path):
    train_all.main(
        ["--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "runs"), "--publish"]
    )
    assert [run.name for run, *_ in train_all.published] == train_all.BUNDLES
    run, bundle, made_by = train_all.published[0]
    assert run == tmp_path / "runs/ra" and bundle == ROOT / "bundles/ra"
    assert made_by.endswith(
        "--dataset_dir DIR --datalist data_lists/ixi_slices.json --output_dir RUNS/ra"
    )


# --- evidence ---


@pytest.fixture
def evidence():
    return script("evidence")


def test_ranks(evidence):
    assert evidence.standing({"RA": 0.7, "VAE": 0.8, "DAE": 0.6}, "RA") == ("second", "VAE")
    assert evidence.standing({"RA": 0.9, "VAE": 0.8}, "RA") == ("first", "VAE")
    pair = Comparison("AUPRC", "RA", "eq5", "VAE", "eq5", 0.1, -0.02, 0.2, 0.3)
    assert (
        evidence.weighed(pair)
        == "+0.100 [-0.020, +0.200]; the interval holds 0, so the order may be chance"
    )
    assert "leaves out 0" in evidence.weighed(pair._replace(difference=-0.1, low=-0.2, high=-0.02))


def test_a_method_that_knows_one_scoring_is_compared_by_it(evidence):
    pairs = (("RA", "residual"), ("RA", "eq5"), ("MKD", "discrepancy"), ("RA", ""))
    rows = [Row(method, scoring, "AUPRC", 0.5, None, None, None, 1, 1) for method, scoring in pairs]
    assert evidence.own_scorings(rows, "eq5") == {"RA": "eq5", "MKD": "discrepancy"}


def test_sentences_follow_the_numbers(evidence):
    """RA with Eq. 5 against the others with the plain residual, and then all with the plain
    residual."""
    measured = Measurements()
    for (method, scoring), value in {
        ("RA", "residual"): 0.2,
        ("RA", "eq5"): 0.5,
        ("VAE", "residual"): 0.4,
        ("VAE", "eq5"): 0.9,
        ("template", "residual"): 0.6,
    }.items():
        values = [value - 0.01, value + 0.01] * 4
        measured.add(method, scoring, "ellipses AUPRC", pooled_mean(values, list("abcdefgh")), 8)
    found = Report("t", "T", measured, [], {})
    papers = evidence.sentence(found, "ellipses AUPRC", "eq5", "residual")
    assert papers.startswith(
        "RA is **first of 2** in ellipses AUPRC 0.500; the best other is VAE 0.400 (+0.100 ["
    )
    assert "the best control is `template` 0.600 (-0.100" in papers
    fair = evidence.sentence(found, "ellipses AUPRC", "residual", "residual")
    assert fair.startswith(
        "RA is **second of 2** in ellipses AUPRC 0.200; the best other is VAE 0.400 (-0.200"
    )


def test_the_papers_numbers_stand_beside(evidence):
    measured = Measurements()
    for method, scoring, metric, value in [
        ("RA", "", "ellipses MSE", 0.04),
        ("RA", "residual", "ellipses AUPRC", 0.3),
        ("RA", "eq5", "ellipses AUPRC", 0.7),
        ("MKD", "discrepancy", "ellipses AUPRC", 0.2),
    ]:
        measured.add(method, scoring, metric, pooled_mean([value] * 4, list("abcd")), 4)
    table = evidence.beside_paper(Report("t", "T", measured, [], {}), "ellipses").set_index(
        "method"
    )
    ra, mkd = table.loc["RA"], table.loc["MKD"]
    assert (ra["MSE"], ra["MSE, paper"], ra["AUPRC"], ra["AUPRC, paper"]) == (
        "4.0",
        3.1,
        "70.0",
        73.7,
    )
    assert (mkd["AUPRC"], mkd["AUPRC, paper"], mkd["MSE"]) == ("20.0", "-", "-")


class Difference(nn.Module):
    """The absolute difference in place of the perceptual distance, which takes long."""

    identity = "difference"

    def forward(self, a, b):
        return (a - b).abs()


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    """Datalist of a small cohort whose healthy test people are of two sites."""
    path = make_slice_cohort(tmp_path_factory.mktemp("cohort"), healthy=4)
    content = json.loads(path.read_text())
    for number, item in enumerate(content["test"][:4]):
        item["site"] = "AB"[number % 2]
    content["test"] = content["test"][:4]
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for name in ("ra", "vae"):
        (folder / name).mkdir()
        torch.save(
            build_network(name, read_settings(name)["network_def"]).state_dict(),
            folder / name / "model.pt",
        )
    return folder


@pytest.fixture
def light(monkeypatch):
    """Few resamples, no perceptual network, and principal components of two slices."""
    monkeypatch.setattr(report, "RESAMPLES", 20)
    monkeypatch.setattr(models, "perceptual_distance", lambda name: Difference())
    monkeypatch.setitem(
        models.CONTROLS, "principal_components", lambda slices: PrincipalComponents(slices, 2)
    )


def test_the_page_is_written_without_paths(
    evidence, light, datalist, runs, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(
        evidence.synthetic.__globals__, "perceptual_distance", lambda name: Difference()
    )
    outcomes = iter([("normal", None, 40.0), ("not_assessable", "single_slice", None)])

    def screener(scan, **options):
        return SimpleNamespace(**dict(zip(("outcome", "code", "percentile"), next(outcomes))))

    monkeypatch.setattr(evidence.Screener, "from_bundle", lambda *arguments, **options: screener)
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    for name in ("one", "two"):
        (strangers / f"{name}.nii.gz").touch()
    given = [
        "--dataset_dir",
        datalist.parent,
        "--datalist",
        datalist,
        "--runs",
        runs,
        "--strangers",
        strangers,
    ]
    options = ["--methods", *METHODS, "--perceptual", "st_alex", "--output", tmp_path / "out"]
    evidence.main([*map(str, [*given, *options])])
    text = (tmp_path / "out/benchmarks.md").read_text("utf-8")
    assert re.search(r"RA is \*\*(first|second) of 2\*\* in ellipses AUPRC", text)
    assert (
        "| strangers | one.nii.gz | normal | 40 |" in text
        or "| strangers | one | normal | 40 |" in text
    )
    assert "not_assessable (single_slice) | - |" in text
    assert "A (n = 2): ellipses AUPRC" in text and "B (n = 2): copy-paste AUPRC" in text
    assert (
        "**Table 1a: ellipses**" in text and "**Table 1b: copy-paste**" in text and "73.7" in text
    )
    assert all(
        f"RA (eq5) | {name}" in text
        for name in ("VAE (eq5)", "template (eq5)", "intensity (equalised)")
    )
    assert not any(str(path) in text for path in (tmp_path, runs, datalist.parent))
    numbers = pd.read_csv(tmp_path / "out/benchmarks.csv")
    assert set(numbers.people) == {"all", "A", "B"} and set(METHODS[2:]) <= set(numbers.method)
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == [
        "benchmarks_synthetic.png"
    ]
    assert capsys.readouterr().out.endswith(f"look at: {tmp_path / 'out/benchmarks.md'}\n")


# --- perceptual backbones ---


def test_every_backbone_is_measured_with_and_without_equalisation(
    light, datalist, runs, monkeypatch, tmp_path
):
    module = script("perceptual_backbones")
    monkeypatch.setattr(module, "is_installed", lambda name: name == "squeeze")
    monkeypatch.setattr(module, "perceptual_distance", lambda *arguments: Difference())
    methods = [f"ra={runs / 'ra'}", "template", "intensity"]
    given = [
        "--dataset_dir",
        datalist.parent,
        "--datalist",
        datalist,
        "--section",
        "test",
        "--output",
        tmp_path,
    ]
    module.main(["--methods", *methods, *map(str, given)])
    numbers = pd.read_csv(tmp_path / "perceptual_backbones.csv")
    backbones = [
        f"{name}{end}"
        for name in ("squeeze", "st_alex", "encoder", "none")
        for end in (", equalised", "")
    ]
    assert set(numbers.metric) == {"ellipses AUPRC", "copy-paste AUPRC"} and (numbers.n == 4).all()
    for method in ("ra", "template"):
        assert set(numbers[numbers.method == method].scoring) == set(backbones)
    assert "intensity" not in set(numbers.method)
