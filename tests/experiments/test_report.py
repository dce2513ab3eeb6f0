"""The results of an experiment on disk."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from outputs.browser import Page

from pathology_screen.experiments import Measurements, Report
from pathology_screen.experiments.report import BOXES, COHORT, RESAMPLES, TABLES, published
from pathology_screen.metrics.pooled import (
    PooledStatistic,
    bootstrap_interval,
    combined,
    paired_difference,
    pooled_auroc,
    pooled_mean,
)

PEOPLE = tuple("abcdefgh")
ALONE = dict(zip(PEOPLE, "hiiiiiii"))  # a group of one person
BASE = np.random.default_rng(0).normal(size=8)
FIRST, SECOND = BASE + np.linspace(0.1, 0.5, 8), BASE + np.linspace(0, 0.2, 8)


def measure(values, groups=None):
    """Measurements of (method, scoring, metric) -> a statistic, or eight values or one of all."""
    measured = Measurements(groups)
    for key, found in values.items():
        is_statistic = isinstance(found, PooledStatistic)
        each = found if is_statistic else pooled_mean(np.broadcast_to(found, 8), PEOPLE)
        measured.add(*key, each, 8)
    return measured


def plain(values, groups=None, notes=()):
    return Report("t", "T", measure(values, groups), notes, {})


@pytest.fixture
def measurements():
    """Two methods, the second in two runs, on eight people."""
    measured = measure({("one", "", "error"): BASE, ("two", "", "error"): FIRST})
    measured.add("two", "", "error", pooled_mean(SECOND, PEOPLE), 8)
    return measured


@pytest.fixture
def make_report(measurements):
    def make(**parts):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        parts = {
            "title": "Of <b>things</b> & more",
            "notes": ["Fewer than <5 & all."],
            "provenance": {"seed": 0, "made_by": "<script>alert(1)</script>"},
            "figures": {"a_figure": figure},
            "tables": {"details": pd.DataFrame({"class": ["<i>mass</i>"], "n": [3]})},
            "measurements": measurements,
        } | parts
        return Report("trial", **parts)

    return make


def test_rows_and_comparisons_are_bootstrapped_and_runs_of_one_label_averaged(measurements):
    first, mean = pooled_mean(BASE, PEOPLE), pooled_mean((FIRST + SECOND) / 2, PEOPLE)
    one, two = measurements.rows()
    expected = bootstrap_interval(first, resamples=RESAMPLES)
    assert one == ("one", "", "error", first.value, *expected, None, 8, 8)
    assert two.value == pytest.approx(mean.value)
    assert two[4:6] == pytest.approx(bootstrap_interval(mean, resamples=RESAMPLES))
    assert two.deviation == pytest.approx(np.std([FIRST.mean(), SECOND.mean()], ddof=1))
    (found,) = measurements.comparisons()
    assert found[:5] == ("error", "one", "", "two", "")
    assert found[5:] == pytest.approx(paired_difference(first, mean, resamples=RESAMPLES))


def test_groups_keep_their_size_and_one_of_a_single_person_gives_no_interval():
    """With each group's own number of people the share of the ill never varies."""
    share = {("m", "", "share"): [0, 0, 0, 1, 1, 1, 1, 1]}
    (free,), (kept,) = (
        measure(share, groups).rows() for groups in (None, dict(zip(PEOPLE, "hhhiiiii")))
    )
    assert free.low < 0.5 < 0.75 < free.high and kept.low == kept.value == kept.high == 0.625
    scores = {"one": list(range(8)), "two": list(range(8, 0, -1))}
    auroc = {
        (label, "", "AUROC"): pooled_auroc([0] + 7 * [1], each, PEOPLE)
        for label, each in scores.items()
    }
    measured = measure(auroc, ALONE)
    first, second = measured.rows()
    assert (first.value, second.value) == (1.0, 0.0) and first.low is first.high is None
    assert measured.comparisons() == []


def test_each_scoring_of_the_first_is_compared_with_every_other_on_the_same_metric():
    keys = [("a", "x", "m"), ("a", "y", "m"), ("b", "x", "m"), ("b", "x", "k")]
    report = plain(dict.fromkeys(keys, range(8)))
    found = ["".join(one[1:5]) for one in report.pairs]
    assert found == ["axay", "axbx", "ayax", "aybx"]
    alone = plain(dict.fromkeys(keys[:2], range(8)))
    assert alone.differences().empty and "Paired" not in alone.markdown()


def test_what_depends_on_no_scoring_stands_in_every_row_of_its_method():
    keys = [("a", "", "MSE"), ("a", "x", "AUPRC"), ("a", "y", "AUPRC"), ("b", "x", "AUPRC")]
    table = plain(dict(zip(keys, (1, 2, 3, 4)))).table()
    assert list(table.columns) == ["method", "scoring", "MSE", "AUPRC"]
    assert table.to_numpy().tolist() == [
        ["a", "x", "1 [1, 1]", "2 [2, 2]"],
        ["a", "y", "1 [1, 1]", "3 [3, 3]"],
        ["b", "x", "", "4 [4, 4]"],
    ]


def test_differences_are_under_the_same_scoring_or_the_others_own(tmp_path):
    rng = np.random.default_rng(0)
    keys = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("own", "z"), ("a", "")]
    report = plain({(*key, "AUPRC" if key[1] else "MSE"): rng.normal(size=8) for key in keys})
    table = report.differences()
    expected = [(f"a ({x})", other) for x in "xy" for other in (f"b ({x})", "own (z)")]
    assert list(table[["method", "minus"]].itertuples(index=False, name=None)) == expected
    (pair,) = [pair for pair in report.pairs if pair[1:5] == ("a", "x", "own", "z")]
    cell = f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"
    assert table["AUPRC"][1] == cell
    assert f"|a (x)|own (z)|{cell}|" in report.markdown()
    assert cell in Page(report.write(tmp_path).read_text("utf-8")).text


def test_a_difference_that_is_not_measured_leaves_its_cell_empty():
    keys = [("a", "x", "m"), ("a", "x", "k"), ("b", "x", "m"), ("c", "x", "k"), ("c", "x", "m")]
    table = plain(dict.fromkeys(keys, range(8))).differences()
    assert list(table.columns) == ["method", "minus", "m", "k"]
    zero = "+0.000 [+0.000, +0.000]"
    assert table.to_numpy().tolist() == [
        ["a (x)", "b (x)", zero, ""],
        ["a (x)", "c (x)", zero, zero],
    ]


def test_the_files_hold_everything(make_report, tmp_path):
    """The same report gives the same bytes in place of an older one."""
    make_report(title="Another").write(tmp_path / "new")
    report = make_report()
    page = report.write(tmp_path / "new")
    assert page == tmp_path / "new/trial.html"
    again = report.write(tmp_path / "again").parent
    names = (".csv", "_comparisons.csv", ".json", ".md", ".tex", ".html", "_details.csv")
    files = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    assert set(files) == {f"trial{name}" for name in (*names, "_a_figure.png")}
    assert files == {path.name: path.read_bytes() for path in again.iterdir()}
    assert files["trial_a_figure.png"].startswith(b"\x89PNG")
    document = json.loads(files["trial.json"], parse_constant=pytest.fail)
    assert document["experiment"] == "trial" and document["provenance"]["seed"] == 0
    assert document["results"] == [row._asdict() for row in report.rows]
    assert document["comparisons"] == [pair._asdict() for pair in report.pairs]
    found = pd.read_csv(page.with_suffix(".csv"), keep_default_na=False)
    assert found["value"].tolist() == [row.value for row in report.rows]
    assert found["deviation"].tolist() == ["", str(report.rows[1].deviation)]
    comparisons = pd.read_csv(page.with_name("trial_comparisons.csv"))
    assert comparisons["p_value"][0] == report.pairs[0].p_value
    assert " ± " in report.table().iloc[1]["error"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_json_does_not_know_is_null(tmp_path, value):
    statistic = combined(lambda a: a * 0 + value, pooled_mean(range(8), PEOPLE))
    report = plain({("a", "", "m"): statistic}, ALONE)
    document = json.loads(report.write(tmp_path).with_suffix(".json").read_text("utf-8"))
    assert document["results"][0]["value"] is None and document["comparisons"] == []
    assert report.table().iloc[0]["m"] == ("inf" if value > 0 else "not defined")


def test_every_text_is_escaped_and_the_page_stands_alone(make_report, tmp_path):
    long = "a method with a label that is longer than fifty characters, as some are"
    labels = ("<b>ra</b>", "ae_s & 5%", "a|b", long)
    report = make_report(measurements=measure({(label, "", "m_1"): 1 for label in labels}))
    path = report.write(tmp_path)
    page, text = Page(path.read_text("utf-8")), path.with_suffix(".tex").read_text("utf-8")
    page.check_stands_alone()
    assert page.all("img") and not any(page.all(tag) for tag in ("script", "b", "i"))
    notes = ("Of <b>things</b> & more", "Fewer than <5 & all.")
    for shown in (*notes, *labels, "<i>mass</i>", "<script>alert(1)"):
        assert shown in page.text
    assert r"ae\_s \& 5\%" in text and r"m\_1" in text and text.startswith(r"\begin{tabular}")
    assert long in text
    markdown = plain({("a|b", "", "m"): 1}, notes=["Note."]).markdown()
    assert markdown == "# T\n\n|method|scoring|m|\n|---|---|---|\n|a\\|b||1 [1, 1]|\n\n- Note.\n"


def test_nothing_is_written_where_a_part_cannot_be_made(make_report, tmp_path):
    class Broken(Figure):
        def savefig(self, *args, **kwargs):
            raise RuntimeError("no picture")

    with pytest.raises(RuntimeError, match="no picture"):
        make_report(figures={"broken": Broken()}).write(tmp_path)
    with pytest.raises(TypeError):
        make_report(provenance={"seed": object()}).write(tmp_path)
    assert not list(tmp_path.iterdir())


def paper_like(profile="paper", protocol="paper", missing=0, boxes=BOXES, file="file_brain_AXT1_1"):
    groups = np.repeat(list(COHORT), list(COHORT.values()))[missing:]
    labels = [("mass",)] * boxes
    slices = SimpleNamespace(groups=groups, box_labels=labels, subjects=[file] * len(groups))
    return profile, protocol, slices


@pytest.mark.parametrize("experiment", TABLES)
def test_on_the_cohort_of_the_paper_its_table_is_given_and_nowhere_else(experiment):
    for protocol in ("paper", "official_code"):
        (table,) = published(experiment, *paper_like(protocol=protocol)).values()
        assert table is TABLES[experiment]
    counts_boxes = experiment in ("localization", "ablation")
    assert bool(published(experiment, *paper_like(protocol="pixel_count"))) != counts_boxes
    for change in ({"profile": "compact"}, {"missing": 1}, {"boxes": BOXES - 1}, {"file": "IXI"}):
        assert published(experiment, *paper_like(**change)) == {}
