"""The commands that train all bundles and write the benchmark page."""

import importlib.util
import json
import re
import shutil
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pairs
import pandas as pd
import pytest
import torch
from slice_cohort import Difference, make_slice_cohort

from pathology_screen.bundles import read_settings
from pathology_screen.experiments import methods, report
from pathology_screen.experiments.report import Comparison, Measurements, Report, Row
from pathology_screen.metrics.pooled import pooled_mean
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
    """The script, which notes its commands and what it publishes, and does neither."""
    module = script("train_all")
    module.commands, module.published = [], []
    run = lambda words, **options: module.commands.append(words)  # noqa: E731
    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module, "publish", lambda *arguments: module.published.append(arguments))
    return module


def test_finished_runs_are_passed_over_and_the_others_trained_by_their_documented_command(
    train_all, tmp_path
):
    runs = tmp_path / "runs"
    (runs / "vae").mkdir(parents=True)
    (runs / "vae/calibration.json").touch()
    train_all.main(["--dataset_dir", str(tmp_path), "--output_dir", str(runs)])
    trained = [Path(words[-1]).name for words in train_all.commands]
    assert trained == [name for name in train_all.BUNDLES if name != "vae"]
    assert not train_all.published
    assert train_all.commands[0][1:] == [
        *("-m", "monai.bundle", "run", "training", "--config_file"),
        "['bundles/ra/configs/train.json','bundles/ra/configs/ship.json']",
        *("--dataset_dir", str(tmp_path), "--datalist", str(ROOT / "data_lists/ixi_slices.json")),
        *("--output_dir", str(runs / "ra")),
    ]


def test_published_weights_name_their_command_without_paths_of_the_machine(train_all, tmp_path):
    runs = tmp_path / "runs"
    train_all.main(["--dataset_dir", str(tmp_path), "--output_dir", str(runs), "--publish"])
    assert [run.name for run, *_ in train_all.published] == train_all.BUNDLES
    run, bundle, made_by = train_all.published[0]
    assert run == runs / "ra" and bundle == ROOT / "bundles/ra"
    given = "--dataset_dir DIR --datalist data_lists/ixi_slices.json --output_dir RUNS/ra"
    assert made_by.endswith(given)


# --- two ways to one result ---


@pytest.mark.parametrize(
    "name", [name for name in pairs.PAIRS if name not in ("warm-up step", "anomaly maps, LPIPS")]
)
def test_what_is_fast_equals_the_literal_definition(name):
    """But for what compiles, and what takes weights that are not installed."""
    pair = pairs.PAIRS[name](True)
    assert pair.difference() <= pair.tolerance


def test_pairs_are_timed_in_turn_and_the_median_ratio_told(monkeypatch):
    order, ticks = [], iter([0, 1, 1, 3, 3, 4, 4, 8, 8, 9, 9, 12])
    ways = [lambda name=name: order.append(name) or [1.0] for name in ("ours", "other")]
    monkeypatch.setattr(pairs, "PAIRS", {"x": lambda small: pairs.Pair(*ways, 0.0, "another")})
    monkeypatch.setattr(pairs.time, "process_time", lambda: next(ticks))
    assert pairs.rows(["x"], 3) == ["|x|another|1|3|3.00|0|"]
    assert order == ["ours", "other"] * 4


# --- ablations, and a site that is left out ---


def around(value):
    """A statistic of eight people with this mean, and their number."""
    return pooled_mean([value - 0.01, value + 0.01] * 4, "abcdefgh"), 8


def test_ablations_keep_the_seeds_and_compare_like_with_like():
    name = "ellipses AUPRC"
    measured = Measurements()
    for method, scoring, seeds in (
        *(("RA", "eq5", (0.6, 0.8)), ("RA", "residual", (0.5, 0.5))),
        *(("lambda 0", "eq5", (0.5, 0.4)), ("lambda 0", "residual", (0.5, 0.6))),
    ):
        for value in seeds:
            measured.add(method, scoring, name, *around(value))
    measured.add("RA", "", "healthy MSE", pooled_mean([0.1, 0.2], "ab"), 2)
    table = script("ablations").numbers(Report("t", "T", measured, [], {}))
    assert set(table.metric) == {name} and set(table.people) == {8}
    found = table.set_index(["compared", "scoring"])
    assert found.loc[("RA", "eq5"), "value"] == pytest.approx(0.7)
    assert found.loc[("RA", "eq5"), "seeds"] == "0.6000 0.8000"
    differences = [row for row in found.index if "minus" in row[0]]
    itself, without = "RA minus RA (residual)", "RA minus lambda 0"
    assert differences == [(itself, "eq5"), (without, "eq5"), (without, "residual")]
    assert found.loc[(without, "eq5"), "value"] == pytest.approx(0.25)
    assert found.loc[(without, "eq5"), "seeds"] == "0.1000 0.4000"
    assert found.loc[(itself, "eq5"), "seeds"] == "0.1000 0.3000"


def test_people_of_a_site_that_is_left_out_are_unseen(light, datalist, tmp_path, monkeypatch):
    """With the weights that the bundle ships in place of a training without them."""
    module, content = script("leave_site_out"), json.loads(datalist.read_text())
    for section in module.SECTIONS:
        items = content[section]
        sites = ["A", "B"] * len(items)
        content[section] = [item | {"site": site} for item, site in zip(items, sites)]
    listed = datalist.with_name("sites.json")
    listed.write_text(json.dumps(content))
    shutil.copytree(ROOT / "bundles/ra/models", tmp_path / "run/ra")
    (tmp_path / "run/ra/training_log.csv").rename(tmp_path / "run/ra/log.csv")
    given = {"dataset_dir": datalist.parent, "datalist": listed, "output_dir": tmp_path / "run"}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    fixed = ["--site", "B", "--perceptual", "st_alex", "--output", str(tmp_path / "docs")]
    module.main([*words, *fixed])
    made = json.loads((tmp_path / "run/datalist.json").read_text())
    assert {item["site"] for item in made["unseen"]} == {"B"} and len(made["unseen"]) > 3
    assert {item["site"] for name in module.SECTIONS for item in made[name]} == {"A"}
    table = pd.read_csv(tmp_path / "docs/leave_site_out.csv")
    called = table[table.metric == "called suspicious"]
    assert set(called.people) == {"B", "other sites"}
    assert set(called.method) == {"RA without B", "RA as shipped"}
    assert called.value.between(called.low, called.high).all()
    assert set(table.method) > {"template", "principal_components"}
    assert set(table[table.epochs > 0].method) == {"RA without B"}


# --- evidence ---


@pytest.fixture
def evidence():
    return script("evidence")


def reported(values):
    """A report of (method, scoring, metric) -> the mean over eight people."""
    measured = Measurements()
    for key, value in values.items():
        measured.add(*key, *around(value))
    return Report("t", "T", measured, [], {})


def test_a_difference_is_weighed_by_its_interval(evidence):
    pair = Comparison("AUPRC", "RA", "eq5", "VAE", "eq5", 0.1, -0.02, 0.2, 0.3)
    held = "+0.100 [-0.020, +0.200]; the interval holds 0, so the order may be chance"
    assert evidence.weighed(pair) == held
    assert "leaves out 0" in evidence.weighed(pair._replace(difference=-0.1, low=-0.2, high=-0.02))


def test_a_method_that_knows_one_scoring_is_compared_by_it(evidence):
    pairs = (("RA", "residual"), ("RA", "eq5"), ("MKD", "discrepancy"), ("RA", ""))
    rows = [Row(*pair, "AUPRC", 0.5, None, None, None, 1, 1) for pair in pairs]
    assert evidence.own_scorings(rows, "eq5") == {"RA": "eq5", "MKD": "discrepancy"}


def test_sentences_follow_the_numbers(evidence):
    """RA with Eq. 5 against the others with the plain residual; then all with that."""
    name, numbers = "ellipses AUPRC", {("RA", "residual"): 0.2, ("RA", "eq5"): 0.5}
    numbers |= {("VAE", "residual"): 0.4, ("VAE", "eq5"): 0.9, ("template", "residual"): 0.6}
    found = reported({(*key, name): value for key, value in numbers.items()})
    papers = evidence.sentence(found, name, "eq5", "residual")
    start = f"RA is **first of 2** in {name} 0.500; the best other is VAE 0.400 (+0.100 ["
    assert papers.startswith(start)
    assert "the best control is `template` 0.600 (-0.100" in papers
    fair = evidence.sentence(found, name, "residual", "residual")
    start = f"RA is **second of 2** in {name} 0.200; the best other is VAE 0.400 (-0.200"
    assert fair.startswith(start)
    alone = evidence.sentence(reported({("RA", "eq5", name): 0.5}), name, "eq5", "residual")
    assert alone == f"{name} 0.500."


def test_the_papers_numbers_stand_beside(evidence):
    numbers = {
        ("RA", "", "ellipses MSE"): 0.04,
        ("RA", "residual", "ellipses AUPRC"): 0.3,
        ("RA", "eq5", "ellipses AUPRC"): 0.7,
        ("MKD", "discrepancy", "ellipses AUPRC"): 0.2,
    }
    table = evidence.beside_paper(reported(numbers), "ellipses").set_index("method")
    assert table.loc["RA"].tolist() == ["4.0 (3.1)", "- (17.7)", "70.0 (73.7)"]
    assert table.loc["MKD"].tolist() == ["-", "-", "20.0"]


def test_training_is_told_from_the_log(evidence, tmp_path):
    columns = ["epoch", "iteration", "val_mse", "kl_sampled"]
    columns += [f"gradient_{name}" for name in ("exp_elbo", "reversed", "kl_generated")]
    rows = [
        [0, 0, 0.5, *[None] * 4],
        [1, 52, None, None, 9.0, 9.0, 9.0],
        [2, 104, 0.4, 3.0, 0.1, 0.25, 0.5],
        [4, 208, 0.3, 3.0, 0.3, 0.75, 1.5],
    ]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "log.csv", index=False)
    (line,) = evidence.training_table({"RA": tmp_path / "log.csv"}).to_dict("records")
    names = ("method", "epochs", "of these introspective", "kept", "steps", "last change")
    told = ("RA", "4", "2", "4", "208", "-25.0% in 2 epochs")
    ratios = {"expELBO": "0.2", "reversed": "0.5", "KL of generated": "1"}
    assert line == dict(zip(names, told)) | ratios


def test_what_another_command_left_is_told(evidence, tmp_path):
    path = tmp_path / "ablations.csv"
    assert evidence.study(path, ["compared"], ["eq5"]).empty
    rows = [
        ["RA", "eq5", "AUPRC", 0.5, 0.4, 0.6, "0.4 0.6"],
        ["RA minus it", "eq5", "AUPRC", 0.1, 0, 0.2, "0 0.2"],
        ["other", "residual", "AUPRC", 0.1, 0, 0.2, "0 0.2"],
    ]
    columns = ["compared", "scoring", "metric", "value", "low", "high", "seeds"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    assert evidence.study(path, ["compared"], ["eq5"]).to_numpy().tolist() == [
        ["RA", "0.500 [0.400, 0.600]"],
        ["RA minus it", "+0.100 [+0.000, +0.200]; +0.000, +0.200"],
    ]


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    """Datalist of a small cohort whose healthy test people are of two sites."""
    path = make_slice_cohort(tmp_path_factory.mktemp("cohort"), healthy=4)
    content = json.loads(path.read_text())
    content["test"] = [item | {"site": site} for item, site in zip(content["test"], "ABAB")]
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for name in ("ra", "vae"):
        (folder / name).mkdir()
        network = build_network(name, read_settings(name)["network_def"])
        torch.save(network.state_dict(), folder / name / "model.pt")
    return folder


@pytest.fixture
def light(monkeypatch):
    """Few resamples, no perceptual network, and principal components of two slices."""
    monkeypatch.setattr(report, "RESAMPLES", 20)
    for module in (methods, import_module("pathology_screen.experiments.synthetic")):
        monkeypatch.setattr(module, "perceptual_distance", lambda name: Difference())
    few = lambda slices: PrincipalComponents(slices, 2)  # noqa: E731
    monkeypatch.setitem(methods.CONTROLS, "principal_components", few)


@pytest.fixture
def write_page(evidence, light, datalist, runs, tmp_path):
    """Function that writes the page of some methods and returns its text."""

    def write(*names, **options):
        given = {"dataset_dir": datalist.parent, "datalist": datalist, "runs": runs} | options
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        fixed = ["--perceptual", "st_alex", "--output", str(tmp_path / "out")]
        evidence.main([*words, "--methods", *names, *fixed])
        return (tmp_path / "out/benchmarks.md").read_text("utf-8")

    return write


def test_the_page_is_written_without_paths(
    evidence, write_page, datalist, runs, monkeypatch, tmp_path, capsys
):
    outcomes = iter([("normal", None, 40.0), ("not_assessable", "single_slice", None)])

    def screener(scan, **options):
        return SimpleNamespace(**dict(zip(("outcome", "code", "percentile"), next(outcomes))))

    monkeypatch.setattr(evidence.Screener, "from_bundle", lambda *arguments, **options: screener)
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    for name in ("one", "two"):
        (strangers / f"{name}.nii.gz").touch()
    text = write_page(*METHODS, strangers=strangers)
    assert re.search(r"RA is \*\*(first|second) of 2\*\* in ellipses AUPRC", text)
    assert re.search(r"\|strangers\|one(\.nii\.gz)?\|normal\|40\|", text)
    for part in (
        "not_assessable (single_slice)|-|",
        *("A (n = 2)", "B (n = 2)", "under Eq. 5, ellipses/copy-paste"),
        *("**Table 1a: ellipses**", "**Table 1b: copy-paste**", "73.7"),
    ):
        assert part in text
    paths = (tmp_path, runs, datalist.parent)
    assert "eights yet" not in text and not any(str(path) in text for path in paths)
    numbers = pd.read_csv(tmp_path / "out/benchmarks.csv")
    assert set(numbers.people) == {"all", "A", "B"} and set(METHODS[2:]) <= set(numbers.method)
    pairs = pd.read_csv(tmp_path / "out/benchmarks_differences.csv")
    assert set(pairs.other) == {"RA", "VAE", *METHODS[2:]} and set(pairs["first"]) == {"RA"}
    charts = {path.name for path in (tmp_path / "out/images").iterdir()}
    assert charts == {"benchmarks_synthetic.png", "benchmarks_training.png"}
    assert capsys.readouterr().out.endswith(f"look at: {tmp_path / 'out/benchmarks.md'}\n")


def test_methods_without_weights_are_named_and_left_out(write_page, tmp_path, capsys):
    text = write_page("ra", "si_vae", "vae", "dae", "intensity")
    assert "- No weights yet, and so no numbers: SI-VAE, DAE.\n" in text
    numbers = pd.read_csv(tmp_path / "out/benchmarks.csv")
    assert set(numbers.method) == {"RA", "VAE", "intensity"}
    with pytest.raises(SystemExit):
        write_page("ra", "vae", runs=tmp_path)
    assert "no weights of RA" in capsys.readouterr().err


# --- perceptual backbones ---


def test_every_backbone_is_measured_with_and_without_equalisation(
    light, datalist, runs, monkeypatch, tmp_path
):
    module = script("perceptual_backbones")
    monkeypatch.setattr(module, "is_installed", lambda name: name == "squeeze")
    monkeypatch.setattr(module, "perceptual_distance", lambda *arguments: Difference())
    where = ["--dataset_dir", datalist.parent, "--datalist", datalist, "--output", tmp_path]
    chosen = [f"ra={runs / 'ra'}", "template", "intensity"]
    module.main(["--methods", *chosen, "--section", "test", *map(str, where)])
    numbers = pd.read_csv(tmp_path / "perceptual_backbones.csv")
    names = ("squeeze", "st_alex", "encoder", "none")
    backbones = {f"{name}{end}" for name in names for end in (", equalised", "")}
    assert set(numbers.metric) == {"ellipses AUPRC", "copy-paste AUPRC"} and (numbers.n == 4).all()
    for method in ("ra", "template"):
        assert set(numbers[numbers.method == method].scoring) == backbones
    assert "intensity" not in set(numbers.method)


# --- where the time goes ---


def test_a_stopwatch_counts_a_stage_without_those_inside_it(monkeypatch):
    module = script("profile_screening")
    ticks = iter([0.0, 1.0, 3.0, 7.0, 15.0])
    monkeypatch.setattr(module, "now", lambda: next(ticks))
    watch = module.Stopwatch()
    tools = SimpleNamespace(inner=lambda value: value + 1)
    watch.watch(tools, "inner", "inner")
    with watch.stage("outer"):
        assert tools.inner(1) == 2
    assert dict(watch.spent) == {"outer": 2 + 8, "inner": 4}


def test_every_stage_is_a_function_of_the_package():
    for module, path in script("profile_screening").STAGES.values():
        part = import_module(f"pathology_screen.{module}")
        for name in path.split("."):
            part = getattr(part, name)
        assert callable(part)


def test_a_table_sums_up_its_stages():
    run = {"reading": 1.0, "map": 3.0}
    found = {"cold": run, "warm": run, "outcome": "normal", "loading": 1.0}
    found |= {"loaded_mib": 5.0, "peak_mib": 7.0}
    text = script("profile_screening").stage_table({"a head": found, "a slice": found})
    assert "|reading|1.00 (25%)|1.00 (25%)|" in text
    assert "|**all, warm**|**4.00**|**4.00**|" in text
