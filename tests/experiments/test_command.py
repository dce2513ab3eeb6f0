"""The command `pathology-screen experiment`."""

import json
import re

import pytest
from torch import nn

from pathology_screen.cli import main
from pathology_screen.experiments import EXPERIMENTS, models


@pytest.fixture
def light_distance(monkeypatch):
    """The absolute difference in place of the perceptual distance, which takes long."""
    light = lambda name: Difference()  # noqa: E731
    monkeypatch.setitem(EXPERIMENTS["synthetic"].__globals__, "perceptual_distance", light)
    monkeypatch.setattr(models, "perceptual_distance", light)


class Difference(nn.Module):
    identity = "difference"

    def forward(self, a, b):
        return (a - b).abs()


@pytest.fixture
def run(datalist, tmp_path):
    """Function that runs an experiment of the controls on the cohort and gives the folder of its
    results."""

    def call(name, *options, methods=("template", "intensity")):
        output = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        arguments = ["--methods", *methods, "--datalist", str(datalist), "--output", str(output)]
        assert main(["experiment", name, *arguments, "--scoring", "residual", *options]) == 0
        return output

    return call


@pytest.mark.parametrize("name", ["detection", "localization", "lesions", "gallery"])
def test_writes_a_report_without_paths_and_prints_it(
    run, light_distance, datalist, tmp_path, capsys, name
):
    output = run(name)
    files = {path.name for path in output.iterdir()}
    assert {
        f"{name}{ending}"
        for ending in (".csv", "_comparisons.csv", ".json", ".md", ".tex", ".html")
    } <= files
    printed = capsys.readouterr().out
    assert (output / f"{name}.md").read_text("utf-8") in printed
    assert printed.endswith(f"look at: {output / name}.html\n")
    for path in output.iterdir():
        if path.suffix != ".png":
            text = re.sub(r"base64,[^\"]+", "", path.read_text("utf-8"))
            assert (
                str(tmp_path) not in text
                and str(datalist.parent) not in text
                and ".nii" not in text
            )


def test_options_reach_the_experiment(run, light_distance):
    options = ("--percentiles-of", "tissue", "--seed", "4", "--protocol", "paper")
    output = run("synthetic", *options, methods=("template:mean",))
    document = json.loads((output / "synthetic.json").read_text("utf-8"))
    made_by = document["provenance"]
    assert (made_by["seed"], made_by["percentiles_of"], made_by["protocol"]) == (
        4,
        "tissue",
        "paper",
    )
    assert made_by["profile"] == "compact"
    assert {row["method"] for row in document["results"]} == {"mean"}
    assert {row["scoring"] for row in document["results"]} == {"", "residual"}


def error_line(capsys, *arguments):
    """The one line that a failing command says."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert captured.out == "" and last.startswith("error: ")
    return last


def test_unknown_names_are_refused_and_nothing_is_written(datalist, tmp_path, capsys):
    def refusal(name="lesions", methods=("template",), *options):
        fixed = ("--datalist", datalist, "--output", tmp_path / "out", "--methods", *methods)
        return error_line(capsys, "experiment", name, *fixed, *options)

    assert "no experiment 'segmentation'; there are synthetic, " in refusal("segmentation")
    assert "no method 'gan'; the methods are ra, " in refusal(methods=("gan",))
    assert "no scoring lpips; there are residual, " in refusal(
        "lesions", ("template",), "--scoring", "lpips"
    )
    assert "no weights of ra" in refusal(methods=(f"ra={tmp_path / 'none'}",))
    assert "perceptual backbone" in refusal("lesions", ("template",), "--perceptual", "vgg")
    assert not (tmp_path / "out").exists()
    missing = (
        "--datalist",
        tmp_path / "none.json",
        "--output",
        tmp_path / "out",
        "--methods",
        "template",
    )
    assert "none.json does not exist" in error_line(capsys, "experiment", "lesions", *missing)


@pytest.mark.parametrize(
    "options", [["lesions"], ["lesions", "--methods", "template"], ["--methods", "template"]]
)
def test_what_is_missing_ends_with_the_usage(options, capsys):
    with pytest.raises(SystemExit) as end:
        main(["experiment", *options])
    assert end.value.code == 2 and "usage" in capsys.readouterr().err


def test_help_names_every_experiment(capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ", ".join(EXPERIMENTS) in text
