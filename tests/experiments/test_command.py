"""The command `pathology-screen experiment`."""

import json
import re

import pytest

from pathology_screen.cli import main
from pathology_screen.experiments import EXPERIMENTS


@pytest.fixture
def run(datalist, tmp_path):
    """Function that runs an experiment of the controls and gives the folder of its results."""

    def call(name, *options, methods=("template", "intensity")):
        output = tmp_path / "out"
        fixed = ["--methods", *methods, "--output", str(output), "--scoring", "residual"]
        assert main(["experiment", name, "--datalist", str(datalist), *fixed, *options]) == 0
        return output

    return call


@pytest.mark.parametrize("name", ["detection", "localization", "lesions", "gallery"])
def test_writes_a_report_without_paths_and_prints_it(run, datalist, tmp_path, capsys, name):
    output = run(name)
    files = {path.name for path in output.iterdir()}
    endings = (".csv", "_comparisons.csv", ".json", ".md", ".tex", ".html")
    assert {f"{name}{ending}" for ending in endings} <= files
    printed = capsys.readouterr().out
    assert (output / f"{name}.md").read_text("utf-8") in printed
    assert printed.endswith(f"look at: {output / name}.html\n")
    for path in output.iterdir():
        if path.suffix != ".png":
            text = re.sub(r"base64,[^\"]+", "", path.read_text("utf-8"))
            assert not any(word in text for word in (str(tmp_path), str(datalist.parent), ".nii"))


def test_options_reach_the_experiment(run, datalist, light_distance, tmp_path):
    content = json.loads(datalist.read_text())
    content |= {"validation": content["calibration"], "calibration": []}
    for item in (*content["validation"], *content["training"]):
        item["image"] = str(datalist.parent / item["image"])
    (tmp_path / "selection.json").write_text(json.dumps(content))
    options = ("--percentiles-of", "tissue", "--seed", "4", "--protocol", "paper")
    chosen = ("--section", "validation", "--datalist", str(tmp_path / "selection.json"))
    output = run("synthetic", *options, *chosen, methods=("template:mean",))
    document = json.loads((output / "synthetic.json").read_text("utf-8"))
    told = document["provenance"]
    names = ("seed", "percentiles_of", "protocol", "profile", "section")
    assert [told[name] for name in names] == [4, "tissue", "paper", "compact", "validation"]
    rows = document["results"]
    assert {(row["method"], row["n"]) for row in rows} == {("mean", 2)}
    assert {row["scoring"] for row in rows} == {"", "residual"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("segmentation --methods template", "no experiment 'segmentation'; there are syn"),
        ("lesions --methods ra=none", "no weights of ra"),
        ("lesions --methods template --perceptual vgg", "perceptual backbone"),
        ("lesions --methods template --datalist none.json", "none.json does not exist"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_written(datalist, tmp_path, capsys, words, message):
    fixed = ["experiment", "--datalist", str(datalist), "--output", str(tmp_path / "out")]
    assert main([*fixed, *words.split()]) == 1
    printed, said = capsys.readouterr()
    last = said.splitlines()[-1]
    assert printed == "" and last.startswith("error: ") and message in last
    assert not (tmp_path / "out").exists()


def test_help_names_every_experiment(capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "--help"])
    assert ", ".join(EXPERIMENTS) in " ".join(capsys.readouterr().out.split())
