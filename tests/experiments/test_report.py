"""The results of an experiment on disk."""

import csv
import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from pathology_screen.experiments import Measurements, Report
from pathology_screen.experiments.report import RESAMPLES
from pathology_screen.metrics import (
    PooledStatistic,
    bootstrap_interval,
    combined,
    paired_difference,
    pooled_auroc,
    pooled_mean,
)

PEOPLE = tuple("abcdefgh")


@pytest.fixture
def values():
    """Two methods, the second in two runs, on eight people."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=8)
    return {
        "one": base,
        "two": base + rng.normal(0.3, 0.1, 8),
        "again": base + rng.normal(0.1, 0.1, 8),
    }


@pytest.fixture
def measurements(values):
    measured = Measurements()
    measured.add("one", "", "error", pooled_mean(values["one"], PEOPLE), 8)
    measured.add("two", "", "error", pooled_mean(values["two"], PEOPLE), 8)
    measured.add("two", "", "error", pooled_mean(values["again"], PEOPLE), 8)
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


class TestMeasurements:
    def test_a_row_is_the_number_with_its_bootstrap_interval(self, values, measurements):
        row = measurements.rows()[0]
        expected = bootstrap_interval(pooled_mean(values["one"], PEOPLE), resamples=RESAMPLES)
        assert (row.value, row.low, row.high) == expected
        assert (row.method, row.scoring, row.metric, row.n, row.subjects) == (
            "one",
            "",
            "error",
            8,
            8,
        )
        assert row.deviation is None

    def test_runs_of_one_label_are_averaged(self, values, measurements):
        first, second = values["two"].mean(), values["again"].mean()
        row = measurements.rows()[1]
        assert row.value == pytest.approx((first + second) / 2)
        assert row.deviation == pytest.approx(np.std([first, second], ddof=1))
        mean = pooled_mean((values["two"] + values["again"]) / 2, PEOPLE)
        assert row[3:6] == pytest.approx(bootstrap_interval(mean, resamples=RESAMPLES))

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.integers(1, 4))
    def test_the_mean_over_runs_is_that_of_any_statistic(self, numbers, runs):
        """A statistic made by hand: the largest value of those who were drawn."""
        people = [f"p{i}" for i in range(len(numbers))]
        measured = Measurements()
        for run in range(runs):
            own = np.array(numbers) * (run + 1)
            largest = PooledStatistic(
                np.array(people), lambda w, own=own: np.where(w > 0, own, -np.inf).max(axis=1)
            )
            measured.add("m", "s", "largest", largest, 3)
        (row,) = measured.rows()
        each = [max(np.array(numbers) * (run + 1)) for run in range(runs)]
        assert row.value == pytest.approx(np.mean(each))
        assert row.low <= row.high <= row.value + 1e-9
        assert (row.deviation is None) == (runs == 1)

    def test_groups_keep_their_size_in_every_resample(self):
        """With each group's own number of people the share of the ill never varies; without, it
        does."""
        share = pooled_mean([0, 0, 0, 1, 1, 1, 1, 1], PEOPLE)
        rows = []
        for groups in (None, dict(zip(PEOPLE, "hhhiiiii"))):
            measured = Measurements(groups)
            measured.add("m", "", "share", share, 8)
            rows += measured.rows()
        assert rows[0].low < 0.5 < 0.75 < rows[0].high
        assert rows[1].low == rows[1].value == rows[1].high == 0.625

    def test_a_group_of_one_gives_a_number_without_interval(self):
        measured = Measurements(dict(zip(PEOPLE, "hiiiiiii")))
        for label, scores in (("one", range(8)), ("two", range(8, 0, -1))):
            measured.add(label, "", "AUROC", pooled_auroc([0] + 7 * [1], list(scores), PEOPLE), 8)
        first, second = measured.rows()
        assert (first.value, second.value) == (1.0, 0.0) and first.low is first.high is None
        assert measured.comparisons() == []

    def test_comparisons_are_the_paired_differences_of_the_first_method(self, values, measurements):
        (found,) = measurements.comparisons()
        mean = pooled_mean((values["two"] + values["again"]) / 2, PEOPLE)
        expected = paired_difference(pooled_mean(values["one"], PEOPLE), mean, resamples=RESAMPLES)
        assert found[:5] == ("error", "one", "", "two", "")
        assert found[5:] == pytest.approx(expected)

    def test_each_scoring_of_the_first_is_compared_with_every_other_on_the_same_metric(self):
        measured = Measurements()
        for key in [("a", "x", "m"), ("a", "y", "m"), ("b", "x", "m"), ("b", "x", "k")]:
            measured.add(*key, pooled_mean(range(8), PEOPLE), 8)
        pairs = [(one[1:3], one[3:5]) for one in measured.comparisons()]
        assert pairs == [
            (("a", "x"), ("a", "y")),
            (("a", "x"), ("b", "x")),
            (("a", "y"), ("a", "x")),
            (("a", "y"), ("b", "x")),
        ]

    def test_merged(self, values, measurements):
        other = Measurements(dict.fromkeys(PEOPLE, "all"))
        other.add("one", "eq5", "AUROC", pooled_mean(values["two"], PEOPLE), 8)
        both = measurements.merged(other)
        assert [row.metric for row in both.rows()] == ["error", "error", "AUROC"]
        assert both.rows() == [
            *measurements.rows(),
            *other.rows(),
        ]  # each with the groups that it had


class TestTable:
    def test_what_depends_on_no_scoring_stands_in_every_row_of_its_method(self):
        measured = Measurements()
        for key, value in {
            ("a", "", "MSE"): 1,
            ("a", "x", "AUPRC"): 2,
            ("a", "y", "AUPRC"): 3,
            ("b", "x", "AUPRC"): 4,
        }.items():
            measured.add(*key, pooled_mean([value] * 8, PEOPLE), 8)
        table = Report("t", "T", measured, [], {}).table()
        assert list(table.columns) == ["method", "scoring", "MSE", "AUPRC"]
        assert table.to_numpy().tolist() == [
            ["a", "x", "1 [1, 1]", "2 [2, 2]"],
            ["a", "y", "1 [1, 1]", "3 [3, 3]"],
            ["b", "x", "", "4 [4, 4]"],
        ]

    def test_runs_show_their_deviation_and_what_is_not_defined_says_so(self, make_report):
        assert " ± " in make_report().table().iloc[1]["error"]
        undefined = Measurements(dict(zip(PEOPLE, "hiiiiiii")))
        nothing = combined(lambda a: a * np.nan, pooled_mean(range(8), PEOPLE))
        undefined.add("a", "", "m", nothing, 8)
        assert make_report(measurements=undefined).table().iloc[0]["m"] == "not defined"

    def test_markdown_is_a_table_whatever_the_labels(self):
        measured = Measurements()
        measured.add("a|b", "", "m", pooled_mean([1] * 8, PEOPLE), 8)
        lines = Report("t", "T", measured, ["Note."], {}).markdown().splitlines()
        assert lines == [
            "# T",
            "",
            "| method | scoring | m |",
            "| --- | --- | --- |",
            r"| a\|b |  | 1 [1, 1] |",
            "",
            "- Note.",
        ]


class TestDifferences:
    @pytest.fixture
    def report(self):
        measured, rng = Measurements(), np.random.default_rng(0)
        for key in [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("own", "z"), ("a", "")]:
            measured.add(
                *key, "AUPRC" if key[1] else "MSE", pooled_mean(rng.normal(size=8), PEOPLE), 8
            )
        return Report("t", "T", measured, [], {})

    def test_the_first_method_minus_each_other_under_the_same_scoring_or_the_others_own(
        self, report
    ):
        table = report.differences()
        assert table[["method", "minus"]].to_numpy().tolist() == [
            ["a (x)", "b (x)"],
            ["a (x)", "own (z)"],
            ["a (y)", "b (y)"],
            ["a (y)", "own (z)"],
        ]
        pair = next(
            pair for pair in report.pairs if (pair.first_scoring, pair.other) == ("x", "own")
        )
        assert table["AUPRC"][1] == f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"

    def test_they_stand_in_the_markdown_and_on_the_page(self, report, tmp_path):
        cell = report.differences()["AUPRC"][0]
        assert f"| a (x) | b (x) | {cell} |" in report.markdown()
        assert (
            cell.replace("+", "&#43;") in (text := report.write(tmp_path).read_text("utf-8"))
            or cell in text
        )

    def test_a_single_method_has_none(self):
        measured = Measurements()
        for scoring in "xy":
            measured.add("a", scoring, "AUPRC", pooled_mean(range(8), PEOPLE), 8)
        report = Report("t", "T", measured, [], {})
        assert report.differences().empty and "Paired" not in report.markdown()


class Page(HTMLParser):
    """What a page shows, and what it would fetch or run."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


class TestWrite:
    FILES = {
        f"trial{ending}" for ending in (".csv", "_comparisons.csv", ".json", ".md", ".tex", ".html")
    }

    def test_writes_all_files_and_returns_the_page(self, make_report, tmp_path):
        page = make_report().write(tmp_path / "new" / "folder")
        assert page == tmp_path / "new" / "folder" / "trial.html"
        assert {path.name for path in page.parent.iterdir()} == self.FILES | {
            "trial_details.csv",
            "trial_a_figure.png",
        }
        assert page.with_name("trial_a_figure.png").read_bytes().startswith(b"\x89PNG")

    def test_json_is_strict_and_holds_everything(self, make_report, tmp_path):
        report = make_report()
        text = report.write(tmp_path).with_suffix(".json").read_text("utf-8")
        document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert document["experiment"] == "trial" and document["provenance"]["seed"] == 0
        assert document["results"] == [row._asdict() for row in report.rows]
        (comparison,) = document["comparisons"]
        assert (
            comparison["first"] == "one" and comparison["difference"] == report.pairs[0].difference
        )

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_json_does_not_know_is_null(self, make_report, tmp_path, value):
        measured = Measurements(dict(zip(PEOPLE, "hiiiiiii")))
        measured.add(
            "a", "", "m", combined(lambda a: a * 0 + value, pooled_mean(range(8), PEOPLE)), 8
        )
        report = make_report(measurements=measured)
        document = json.loads(report.write(tmp_path).with_suffix(".json").read_text("utf-8"))
        assert document["results"][0]["value"] is None and document["comparisons"] == []

    def test_csv_holds_the_numbers_in_full(self, make_report, tmp_path):
        report = make_report()
        with report.write(tmp_path).with_suffix(".csv").open(newline="") as file:
            first, second = csv.DictReader(file)
        assert float(first["value"]) == report.rows[0].value and first["deviation"] == ""
        assert float(second["deviation"]) == report.rows[1].deviation and second["subjects"] == "8"
        comparisons = pd.read_csv(tmp_path / "trial_comparisons.csv")
        assert comparisons["p_value"][0] == report.pairs[0].p_value

    def test_the_page_stands_alone_and_is_escaped(self, make_report, tmp_path):
        measured = Measurements()
        measured.add("<b>ra</b>", "", "m", pooled_mean(range(8), PEOPLE), 8)
        page = Page(make_report(measurements=measured).write(tmp_path).read_text("utf-8"))
        assert not {"script", "b", "i", "link", "iframe"} & set(page.tags)
        assert page.sources and all(
            source.startswith("data:image/png;base64,") for source in page.sources
        )
        for text in (
            "Of <b>things</b> & more",
            "<b>ra</b>",
            "Fewer than <5 & all.",
            "<i>mass</i>",
            "<script>alert(1)",
        ):
            assert text in page.text

    def test_latex_is_escaped(self, tmp_path):
        measured = Measurements()
        measured.add("ae_s & 5%", "", "m_1", pooled_mean([1] * 8, PEOPLE), 8)
        text = (
            Report("trial", "T", measured, [], {})
            .write(tmp_path)
            .with_suffix(".tex")
            .read_text("utf-8")
        )
        assert r"ae\_s \& 5\%" in text and r"m\_1" in text and text.startswith(r"\begin{tabular}")

    def test_long_labels_are_not_cut(self, make_report, tmp_path):
        label = "a method with a label that is longer than fifty characters, as some are"
        measured = Measurements()
        measured.add(label, "", "m", pooled_mean(range(8), PEOPLE), 8)
        page = make_report(measurements=measured).write(tmp_path)
        assert label in page.read_text("utf-8") and label in page.with_suffix(".tex").read_text(
            "utf-8"
        )

    def test_nothing_is_written_where_a_part_cannot_be_made(self, make_report, tmp_path):
        class Broken(Figure):
            def savefig(self, *args, **kwargs):
                raise RuntimeError("no picture")

        with pytest.raises(RuntimeError, match="no picture"):
            make_report(figures={"broken": Broken()}).write(tmp_path)
        assert not list(tmp_path.iterdir())
        with pytest.raises(TypeError):
            make_report(provenance={"seed": object()}).write(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_second_report_takes_the_place_of_the_first(self, make_report, tmp_path):
        make_report().write(tmp_path)
        page = make_report(title="Second").write(tmp_path)
        assert "Second" in page.read_text("utf-8") and not list(tmp_path.glob(".*"))

    def test_the_same_report_gives_the_same_bytes(self, make_report, tmp_path):
        for folder in ("a", "b"):
            make_report().write(tmp_path / folder)
        for path in (tmp_path / "a").iterdir():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
