"""Where the marks of charts lie."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pathology_screen.outputs.charts import Axis, histogram


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5))
def test_an_axis_holds_its_values_between_ticks(values):
    axis = Axis(values, 10, 110)
    assert all(9.9 <= axis.at(value) <= 110.1 for value in values)
    places, texts = zip(*axis.ticks)
    assert places[0] == 10 and places[-1] == 110 and 2 <= len(places) <= 10
    assert len(set(texts)) == len(texts)


@given(st.sets(st.integers(0, 300), min_size=2, max_size=5))
def test_an_axis_of_whole_numbers_has_whole_ticks_and_may_run_upwards(values):
    axis = Axis(sorted(values), 100, 0, whole=True)
    assert all(text.isdigit() and axis.at(int(text)) == place for place, text in axis.ticks)
    assert [Axis([0, 1], 100, 0).at(value) for value in (0, 0.25, 1)] == [100, 75, 0]


KINDS = st.sampled_from(["normal", "suspicious"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-4, 1.0), KINDS), min_size=1, max_size=60), st.floats(0, 2))
@example([(1.0, "normal"), (0.45, "normal")], 0.5)
@example([(1.0, "normal")] * 7, 1.0)
def test_a_histogram_counts_every_value_once_and_bars_do_not_overlap(scans, limit):
    scores, kinds = zip(*scans)
    chart = histogram(scores, kinds, [limit])
    across, up, bars = chart["across"], chart["up"], chart["bars"]
    assert across.low <= limit * 1.001 and limit <= across.high * 1.001
    for kind in set(kinds):
        assert sum(bar["number"] for bar in bars if bar["kind"] == kind) == kinds.count(kind)
    for place in {bar["x"] for bar in bars}:
        pile = sorted((bar for bar in bars if bar["x"] == place), key=lambda bar: -bar["y"])
        assert pile[0]["y"] + pile[0]["height"] == pytest.approx(up.at(0), abs=0.11)
        height = up.at(0) - up.at(sum(bar["number"] for bar in pile))
        assert sum(bar["height"] for bar in pile) == pytest.approx(height, abs=0.3)
    assert all(up.stop - 0.1 <= bar["y"] for bar in bars)
