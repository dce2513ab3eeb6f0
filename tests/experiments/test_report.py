"""The results of an experiment on disk."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from outputs.browser import Page

from pathology_screen.experiments import Measurements, Report
from pathology_screen.experiments.report import RESAMPLES
from pathology_screen.metrics.bootstrap import bootstrap_interval, paired_difference
from pathology_screen.metrics.pooled import PooledStatistic, combined, pooled_auroc, pooled_mean

PEOPLE = tuple("abcdefgh")
ALONE = dict(zip(PEOPLE, "hiiiiiii"))  # a group of one person


def measure(values, groups=None):
    """Measurements of (method, scoring, metric) -> a statistic, or eight values or one of all."""
    measured = Measurements(groups)
    for key, found in values.items():
        is_statistic = isinstance(found, PooledStatistic)
        each = found if is_statistic else pooled_mean(np.broadcast_to(found, 8), PEOPLE)
        measured.add(*key, each, 8)
    return measured


@pytest.fixture
def values():
    """Two methods, the second in two runs, on eight people."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=8)
    return [base, base + rng.normal(0.3, 0.1, 8), base + rng.normal(0.1, 0.1, 8)]


@pytest.fixture
def measurements(values):
    measured = measure({("one", "", "error"): values[0], ("two", "", "error"): values[1]})
    measured.add("two", "", "error", pooled_mean(values[2], PEOPLE), 8)
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
        expected = bootstrap_interval(pooled_mean(values[0], PEOPLE), resamples=RESAMPLES)
        assert measurements.rows()[0] == ("one", "", "error", *expected, None, 8, 8)

    def test_runs_of_one_label_are_averaged(self, values, measurements):
        row = measurements.rows()[1]
        mean = pooled_mean((values[1] + values[2]) / 2, PEOPLE)
        assert row[3:6] == pytest.approx(bootstrap_interval(mean, resamples=RESAMPLES))
        runs = [values[1].mean(), values[2].mean()]
        assert row.deviation == pytest.approx(np.std(runs, ddof=1))

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.integers(1, 4))
    def test_the_mean_over_runs_is_that_of_any_statistic(self, numbers, runs):
        """A statistic made by hand: the largest value of those who were drawn."""
        people = np.array([f"p{i}" for i in range(len(numbers))])
        measured, each = Measurements(), []
        for run in range(runs):
            own = np.array(numbers) * (run + 1)
            each.append(own.max())
            largest = PooledStatistic(
                people, lambda w, own=own: np.where(w > 0, own, -np.inf).max(axis=1)
            )
            measured.add("m", "s", "largest", largest, 3)
        (row,) = measured.rows()
        assert row.value == pytest.approx(np.mean(each))
        assert row.low <= row.high <= row.value + 1e-9
        assert (row.deviation is None) == (runs == 1)

    def test_groups_keep_their_size_in_every_resample(self):
        """With each group's own number of people the share of the ill never varies."""
        share = {("m", "", "share"): [0, 0, 0, 1, 1, 1, 1, 1]}
        (free,), (kept,) = (
            measure(share, groups).rows() for groups in (None, dict(zip(PEOPLE, "hhhiiiii")))
        )
        assert free.low < 0.5 < 0.75 < free.high and kept.low == kept.value == kept.high == 0.625

    def test_a_group_of_one_gives_a_number_without_interval(self):
        scores = {"one": range(8), "two": range(8, 0, -1)}
        auroc = {
            (label, "", "AUROC"): pooled_auroc([0] + 7 * [1], list(each), PEOPLE)
            for label, each in scores.items()
        }
        measured = measure(auroc, ALONE)
        first, second = measured.rows()
        assert (first.value, second.value) == (1.0, 0.0) and first.low is first.high is None
        assert measured.comparisons() == []

    def test_comparisons_are_the_paired_differences_of_the_first_method(self, values, measurements):
        (found,) = measurements.comparisons()
        mean = pooled_mean((values[1] + values[2]) / 2, PEOPLE)
        first = pooled_mean(values[0], PEOPLE)
        assert found[:5] == ("error", "one", "", "two", "")
        expected = paired_difference(first, mean, resamples=RESAMPLES)
        assert found[5:] == pytest.approx(expected)

    def test_each_scoring_of_the_first_is_compared_with_every_other_on_the_same_metric(self):
        keys = [("a", "x", "m"), ("a", "y", "m"), ("b", "x", "m"), ("b", "x", "k")]
        measured = measure(dict.fromkeys(keys, range(8)))
        assert ["".join(one[1:5]) for one in measured.comparisons()] == [
            *("axay", "axbx", "ayax", "aybx")
        ]

    def test_merged_measurements_keep_their_groups(self, measurements):
        other = measure({("one", "eq5", "AUROC"): range(8)}, dict.fromkeys(PEOPLE, "all"))
        merged = measurements.merged(other).rows()
        assert merged == [*measurements.rows(), *other.rows()]


class TestTables:
    def test_what_depends_on_no_scoring_stands_in_every_row_of_its_method(self):
        keys = [("a", "", "MSE"), ("a", "x", "AUPRC"), ("a", "y", "AUPRC"), ("b", "x", "AUPRC")]
        table = Report("t", "T", measure(dict(zip(keys, (1, 2, 3, 4)))), [], {}).table()
        assert list(table.columns) == ["method", "scoring", "MSE", "AUPRC"]
        assert table.to_numpy().tolist() == [
            ["a", "x", "1 [1, 1]", "2 [2, 2]"],
            ["a", "y", "1 [1, 1]", "3 [3, 3]"],
            ["b", "x", "", "4 [4, 4]"],
        ]

    def test_runs_show_their_deviation_and_what_is_not_defined_says_so(self, make_report):
        assert " ± " in make_report().table().iloc[1]["error"]
        nothing = combined(lambda a: a * np.nan, pooled_mean(range(8), PEOPLE))
        undefined = measure({("a", "", "m"): nothing}, ALONE)
        assert make_report(measurements=undefined).table().iloc[0]["m"] == "not defined"

    def test_markdown_is_a_table_whatever_the_labels(self):
        report = Report("t", "T", measure({("a|b", "", "m"): 1}), ["Note."], {})
        assert report.markdown() == (
            "# T\n\n|method|scoring|m|\n|---|---|---|\n|a\\|b||1 [1, 1]|\n\n- Note.\n"
        )

    def test_differences_are_under_the_same_scoring_or_the_others_own(self, tmp_path):
        rng = np.random.default_rng(0)
        keys = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("own", "z"), ("a", "")]
        measured = measure(
            {(*key, "AUPRC" if key[1] else "MSE"): rng.normal(size=8) for key in keys}
        )
        report = Report("t", "T", measured, [], {})
        table = report.differences()
        expected = [(f"a ({x})", other) for x in "xy" for other in (f"b ({x})", "own (z)")]
        assert list(table[["method", "minus"]].itertuples(index=False, name=None)) == expected
        (pair,) = [pair for pair in report.pairs if pair[1:5] == ("a", "x", "own", "z")]
        cell = f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"
        assert table["AUPRC"][1] == cell
        assert f"|a (x)|own (z)|{cell}|" in report.markdown()
        assert cell in Page(report.write(tmp_path).read_text("utf-8")).text

    def test_a_single_method_has_no_differences(self):
        measured = measure({("a", "x", "AUPRC"): range(8), ("a", "y", "AUPRC"): range(8)})
        report = Report("t", "T", measured, [], {})
        assert report.differences().empty and "Paired" not in report.markdown()


class TestWrite:
    ENDINGS = (".csv", "_comparisons.csv", ".json", ".md", ".tex", ".html")

    def test_writes_all_files_and_returns_the_page(self, make_report, tmp_path):
        page = make_report().write(tmp_path / "new" / "folder")
        assert page == tmp_path / "new" / "folder" / "trial.html"
        endings = {*self.ENDINGS, "_details.csv", "_a_figure.png"}
        names = {path.name for path in page.parent.iterdir()}
        assert names == {f"trial{ending}" for ending in endings}
        assert page.with_name("trial_a_figure.png").read_bytes().startswith(b"\x89PNG")

    def test_json_is_strict_and_holds_everything(self, make_report, tmp_path):
        report = make_report()
        text = report.write(tmp_path).with_suffix(".json").read_text("utf-8")
        document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert document["experiment"] == "trial" and document["provenance"]["seed"] == 0
        assert document["results"] == [row._asdict() for row in report.rows]
        assert document["comparisons"] == [pair._asdict() for pair in report.pairs]

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_json_does_not_know_is_null(self, make_report, tmp_path, value):
        statistic = combined(lambda a: a * 0 + value, pooled_mean(range(8), PEOPLE))
        report = make_report(measurements=measure({("a", "", "m"): statistic}, ALONE))
        document = json.loads(report.write(tmp_path).with_suffix(".json").read_text("utf-8"))
        assert document["results"][0]["value"] is None and document["comparisons"] == []

    def test_csv_holds_the_numbers_in_full(self, make_report, tmp_path):
        report = make_report()
        found = pd.read_csv(report.write(tmp_path).with_suffix(".csv"), keep_default_na=False)
        assert found["value"].tolist() == [row.value for row in report.rows]
        assert found["deviation"].tolist() == ["", str(report.rows[1].deviation)]
        comparisons = pd.read_csv(tmp_path / "trial_comparisons.csv")
        assert comparisons["p_value"][0] == report.pairs[0].p_value

    def test_the_page_stands_alone_and_is_escaped(self, make_report, tmp_path):
        measured = measure({("<b>ra</b>", "", "m"): range(8)})
        page = Page(make_report(measurements=measured).write(tmp_path).read_text("utf-8"))
        page.check_stands_alone()
        assert page.all("img") and not any(page.all(tag) for tag in ("script", "b", "i"))
        for text in (
            *("Of <b>things</b> & more", "<b>ra</b>", "Fewer than <5 & all."),
            *("<i>mass</i>", "<script>alert(1)"),
        ):
            assert text in page.text

    def test_latex_is_escaped_and_long_labels_are_not_cut(self, make_report, tmp_path):
        label = "a method with a label that is longer than fifty characters, as some are"
        measured = measure({("ae_s & 5%", "", "m_1"): 1, (label, "", "m_1"): 1})
        page = make_report(measurements=measured).write(tmp_path)
        text = page.with_suffix(".tex").read_text("utf-8")
        assert r"ae\_s \& 5\%" in text and r"m\_1" in text and text.startswith(r"\begin{tabular}")
        assert label in text and label in page.read_text("utf-8")

    def test_nothing_is_written_where_a_part_cannot_be_made(self, make_report, tmp_path):
        class Broken(Figure):
            def savefig(self, *args, **kwargs):
                raise RuntimeError("no picture")

        with pytest.raises(RuntimeError, match="no picture"):
            make_report(figures={"broken": Broken()}).write(tmp_path)
        with pytest.raises(TypeError):
            make_report(provenance={"seed": object()}).write(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_the_same_report_gives_the_same_bytes_in_place_of_an_older_one(
        self, make_report, tmp_path
    ):
        make_report(title="Another").write(tmp_path / "a")
        for folder in ("a", "b"):
            make_report().write(tmp_path / folder)
        first, second = (
            {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
            for folder in ("a", "b")
        )
        assert first == second
