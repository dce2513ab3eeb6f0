"""Where the marks of charts lie."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pathology_screen.outputs.charts import Axis, histogram


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


KINDS = st.sampled_from(["normal", "suspicious"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-4, 1.0), KINDS), min_size=1, max_size=60), st.floats(0, 2))
@example([(1.0, "normal"), (0.45, "normal")], 0.5)
@example([(1.0, "normal")] * 7, 1.0)
def test_a_histogram_counts_every_value_once_and_bars_do_not_overlap(scans, limit):
    scores, kinds = zip(*scans)
    chart = histogram(scores, kinds, [limit])
    assert chart.across.low <= limit * 1.001 and limit <= chart.across.high * 1.001
    for kind in set(kinds):
        assert sum(bar.number for bar in chart.bars if bar.kind == kind) == kinds.count(kind)
    for place in {bar.x for bar in chart.bars}:
        pile = sorted((bar for bar in chart.bars if bar.x == place), key=lambda bar: -bar.y)
        assert pile[0].y + pile[0].height == pytest.approx(chart.up.at(0), abs=0.11)
        height = chart.up.at(0) - chart.up.at(sum(bar.number for bar in pile))
        assert sum(bar.height for bar in pile) == pytest.approx(height, abs=0.3)
    assert all(chart.up.stop - 0.1 <= bar.y for bar in chart.bars)
