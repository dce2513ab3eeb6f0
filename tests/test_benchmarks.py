"""The commands that train all bundles and write the benchmark page."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from pathology_screen.networks.build import build_network
from torch import nn

from pathology_screen.bundles import read_settings
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.errors import ConfigError
from pathology_screen.experiments import models, report
from pathology_screen.experiments.report import Row

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
    """The script, which notes its commands in `commands`, and what it publishes in `published`, and does neither."""
    module = script("train_all")
    module.commands, module.published = [], []
    monkeypatch.setattr(module.subprocess, "run", lambda words, **options: module.commands.append(words))
    monkeypatch.setattr(module, "publish", lambda *arguments: module.published.append(arguments))
    return module


def test_finished_runs_are_passed_over_and_the_others_trained_by_their_documented_command(train_all, tmp_path):
    (tmp_path / "runs/vae").mkdir(parents=True)
    (tmp_path / "runs/vae/calibration.json").touch()
    train_all.main(["--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "runs")])
    trained = [Path(words[-1]).name for words in train_all.commands]
    assert trained == [name for name in train_all.BUNDLES if name != "vae"] and not train_all.published
    words = train_all.commands[0][1:]
    assert words[:4] == ["-m", "monai.bundle", "run", "training"]
    assert words[5] == "['bundles/ra/configs/train.json','bundles/ra/configs/ship.json']"
    assert words[6:] == [
        *("--dataset_dir", str(tmp_path), "--datalist", str(ROOT / "data_lists/oasis.json")),
        *("--output_dir", str(tmp_path / "runs/ra")),
    ]


def test_published_weights_name_their_command_without_paths_of_the_machine(train_all, tmp_path):
    train_all.main(["--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "runs"), "--publish"])
    assert [run.name for run, *_ in train_all.published] == train_all.BUNDLES
    run, bundle, made_by = train_all.published[0]
    assert run == tmp_path / "runs/ra" and bundle == ROOT / "bundles/ra"
    assert made_by.endswith("--dataset_dir DIR --datalist data_lists/oasis.json --output_dir RUNS/ra")


# --- evidence ---


@pytest.fixture
def evidence():
    return script("evidence")


def test_ranks(evidence):
    assert evidence.standing({"RA": 0.7, "VAE": 0.8, "DAE": 0.6}, "RA") == ("second", "VAE")
    assert evidence.standing({"RA": 0.9, "VAE": 0.8}, "RA") == ("first", "VAE")
    pair = pd.Series({"difference": 0.1, "low": -0.02, "high": 0.2})
    assert evidence.weighed(pair) == "+0.100 [-0.020, +0.200]; the interval holds 0, so the order may be chance"
    assert "leaves out 0" in evidence.weighed(pd.Series({"difference": -0.1, "low": -0.2, "high": -0.02}))


def test_auroc_at_chance_are_counted(evidence):
    rows = [Row("RA", "eq5", "local AUROC", 0.6, low, 0.9, None, 4, 4) for low in (0.4, 0.55)]
    assert evidence.chance(rows) == "1 of the 2 intervals hold 0.5, which is chance."


def test_a_method_that_knows_one_scoring_is_compared_by_it(evidence):
    pairs = (("RA", "residual"), ("RA", "eq5"), ("MKD", "discrepancy"), ("RA", ""))
    rows = [Row(method, scoring, "AUPRC", 0.5, None, None, None, 1, 1) for method, scoring in pairs]
    assert evidence.rivals(rows, "eq5") == {"RA": "RA (eq5)", "MKD": "MKD (discrepancy)"}


@pytest.mark.parametrize("codes", ["LPS", "RAI"])
def test_tumour_slices_become_items_with_their_box(evidence, codes, tmp_path):
    scans, folder = tmp_path / "scans", tmp_path / "list"
    scans.mkdir(), folder.mkdir()
    mask = np.zeros((8, 9, 16), np.uint8)
    mask[2:5, 3:7, 2:12], mask[2, 3, 15] = 4, 1
    affine = np.diag([*([-1, -1, 1] if codes == "LPS" else [1, 1, -1]), 1.0])
    for kind, voxels in (("T1w", np.ones_like(mask)), ("mask", mask)):
        nib.save(nib.Nifti1Image(voxels, affine), scans / f"X_{kind}.nii.gz")
    items = json.loads(evidence.tumour_datalist(scans, folder).read_text())["test"]
    stored = [3, 9] if codes == "LPS" else [6]  # of 16 levels from inferior every sixth: 3, 9 and 15
    assert [item["boxes"][0]["slice"] for item in items] == stored
    assert {item["level"] for item in items} == ({3, 9} if codes == "LPS" else {9})
    assert items[0]["boxes"][0] | {"slice": 0} == {"label": "patient 1", "slice": 0, "box": [2, 3, 3, 4]}
    assert (folder / items[0]["image"]).resolve() == scans / "X_T1w.nii.gz"
    assert np.unique(nib.load(folder / items[0]["label"]).dataobj).tolist() == [0, 1]


def test_a_folder_without_tumours_is_refused(evidence, tmp_path):
    with pytest.raises(ConfigError, match="X_T1w"):
        evidence.tumour_datalist(tmp_path, tmp_path)


class Difference(nn.Module):
    """The absolute difference in place of the perceptual distance, which takes long."""

    identity = "difference"

    def forward(self, a, b):
        return (a - b).abs()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Datalist of a tiny cohort, and a folder of its first two volumes with lesions, named as the gliomas are."""
    few = {"training": 2, "validation": 0, "calibration": 2, "healthy": 2, "lesions": 3, "extracted": True}
    datalist = make_phantom_cohort(tmp_path_factory.mktemp("cohort"), **few)
    tumours = tmp_path_factory.mktemp("tumours")
    content = json.loads(datalist.read_text())
    for item in [item for item in content["test"] if item["pathology"] != "healthy"][:2]:
        for key, kind in (("image", "T1w"), ("label", "mask")):
            shutil.copy(datalist.parent / item[key], tumours / f"{item['subject']}_{kind}.nii.gz")
    return datalist, tumours


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for name in ("ra", "vae"):
        (folder / name).mkdir()
        torch.save(build_network(name, read_settings(name)["network_def"]).state_dict(), folder / name / "model.pt")
    return Path(shutil.copytree(folder / "ra", folder / "another seed")).parent


@pytest.mark.slow
def test_the_page_is_written_twice_alike_and_without_paths(evidence, phantoms, runs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(report, "RESAMPLES", 20)
    monkeypatch.setattr(models, "perceptual_distance", lambda name: Difference())
    monkeypatch.setitem(evidence.synthetic.__globals__, "perceptual_distance", lambda name: Difference())
    monkeypatch.setattr(evidence, "EVERY", 3)
    datalist, tumours = phantoms
    ablated = ["--reversal", str(runs / "ra"), str(runs / "another seed"), "--no-reversal", str(runs / "ra")]
    for output in ("a", "b"):
        given = ["--oasis", datalist.parent, "--datalist", datalist, "--glioma", tumours, "--runs", runs]
        given += ["--pictures", datalist]
        options = ["--methods", *METHODS, "--perceptual", "st_alex", "--output", str(tmp_path / output)]
        evidence.main([*map(str, given), *(options if output == "b" else [*options, *ablated])])
    first, second = (tmp_path / output for output in "ab")
    text, again = ((output / "benchmarks.md").read_text("utf-8") for output in (first, second))
    assert (
        text.partition("## Ablation")[0].replace(" --reversal RUN --no-reversal RUN", "")
        == (again.partition("## Ablation")[0])
    )
    assert "What the reversed loss adds" in text and "What the reversed loss adds" not in again
    assert "trainings of its own" in again and "RA without reversed loss, seeds" in text and " ± 0 " in text
    assert re.search(r"RA is \*\*(first|second) of 2\*\* in ellipses AUPRC", text)
    assert "patient 2: AUPRC / base rate" in text and "RA, one pass" in text and "inferer" in text
    assert not any(str(path) in text for path in (tmp_path, runs, datalist.parent, tumours))
    numbers = pd.read_csv(first / "benchmarks.csv")
    assert set(numbers.part) == {"synthetic", "detection", "false_positives", "ablation"}
    assert set(METHODS[2:]) <= set(numbers.method) and numbers.n.min() > 0
    assert sorted(path.name for path in (first / "images").iterdir()) == [
        "benchmarks_comparisons.png",
        "benchmarks_pictures.png",
        "benchmarks_synthetic.png",
    ]
    assert (first / "benchmarks.csv").stat().st_size < 50_000
    assert capsys.readouterr().out.endswith(f"look at: {second / 'benchmarks.md'}\n")
