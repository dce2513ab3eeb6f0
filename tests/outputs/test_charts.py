"""Where the marks of charts lie."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pathology_screen.outputs.charts import LEFT, RIGHT, Axis, distribution, histogram

SCORES = st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=60)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5))
def test_an_axis_holds_its_values_between_ticks(values):
    axis = Axis.around(values, 10, 110)
    places = [axis.at(value) for value in values]
    assert all(9.9 <= place <= 110.1 for place in places)
    ticks = axis.ticks
    assert ticks[0].at == 10 and ticks[-1].at == 110 and 2 <= len(ticks) <= 10
    assert len({tick.text for tick in ticks}) == len(ticks)


@given(st.sets(st.integers(0, 300), min_size=2, max_size=5))
def test_an_axis_of_whole_numbers_has_whole_ticks(values):
    ticks = Axis.around(sorted(values), 10, 110, whole=True).ticks
    assert all(tick.text.isdigit() for tick in ticks)


def test_an_axis_is_linear_and_may_run_upwards():
    axis = Axis.around([0, 1], 100, 0)
    assert [axis.at(value) for value in (0, 0.25, 1)] == [100, 75, 0]


@settings(max_examples=50, deadline=None)
@given(SCORES, st.floats(1e-4, 1.0), st.floats(1e-4, 1.0))
def test_every_healthy_person_is_a_dot_at_their_score(healthy, score, limit):
    chart = distribution(healthy, score, limit)
    assert len(chart.dots) == len(healthy)
    for dot, value in zip(chart.dots, sorted(healthy)):
        assert abs(dot.x - chart.axis.at(value)) <= chart.radius / 0.44
    assert all(LEFT <= dot.x <= RIGHT and 40 < dot.y < chart.base for dot in chart.dots)
    assert (chart.score, chart.limit) == (chart.axis.at(score), chart.axis.at(limit))


def test_many_equal_scores_are_piled_up_smaller():
    few, many = (distribution([0.5] * n, 0.4, 0.6) for n in (3, 500))
    assert many.radius < few.radius and min(dot.y for dot in many.dots) > 40


KINDS = st.sampled_from(["normal", "suspicious"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-4, 1.0), KINDS), min_size=1, max_size=60))
@example([(1.0, "normal"), (0.45, "normal")])
@example([(1.0, "normal")] * 7)
def test_a_histogram_counts_every_scan_once_and_bars_do_not_overlap(scans):
    scores, kinds = zip(*scans)
    chart = histogram(scores, kinds)
    for kind in set(kinds):
        assert sum(bar.scans for bar in chart.bars if bar.kind == kind) == kinds.count(kind)
    for place in {bar.x for bar in chart.bars}:
        pile = sorted((bar for bar in chart.bars if bar.x == place), key=lambda bar: -bar.y)
        assert pile[0].y + pile[0].height == pytest.approx(chart.up.at(0), abs=0.11)
        height = chart.up.at(0) - chart.up.at(sum(bar.scans for bar in pile))
        assert sum(bar.height for bar in pile) == pytest.approx(height, abs=0.3)
    assert all(chart.up.stop - 0.1 <= bar.y for bar in chart.bars)
