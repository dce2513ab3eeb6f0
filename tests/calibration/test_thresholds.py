"""The thresholds of people and of pixels."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.calibration import Calibration, count_rate, fewest_people, pixel_threshold
from pathology_screen.errors import ConfigError


@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=200), percent=st.integers(1, 99))
def test_pixel_threshold_is_the_smallest_that_keeps_the_rate(values, percent):
    maps = np.array(values, np.float32)
    threshold = pixel_threshold(maps, percent / 100)
    allowed = percent * len(values)  # exact, in hundredths
    assert 100 * (maps > threshold).sum() <= allowed
    smaller = maps[maps < threshold]
    if smaller.size:
        assert 100 * (maps > smaller.max()).sum() > allowed
    assert threshold in maps


def test_pixel_threshold_of_known_values():
    assert pixel_threshold(np.arange(100), 0.05) == 94
    assert pixel_threshold(np.arange(100), 0.29) == 70
    assert pixel_threshold(np.zeros((2, 3)), 0.05) == 0


def test_thousand_maps_take_less_than_a_second():
    maps = np.random.default_rng(0).random((1000, 1, 128, 128), dtype=np.float32)
    start = time.process_time()
    threshold = pixel_threshold(maps, 0.05)
    assert time.process_time() - start < 1
    assert threshold == pytest.approx(0.95, abs=1e-3)


@given(people=st.integers(1, 60), percent=st.integers(1, 60))
def test_the_image_threshold_is_exceeded_where_the_p_value_is_small(people, percent):
    scores = np.random.default_rng(people).random(people)
    fitted = Calibration(0.1, 0.05, {}, tuple(scores), tuple(range(people)), {})
    if percent * (people + 1) < 100:  # exact, in hundredths
        assert people < fewest_people(percent / 100)
        with pytest.raises(ConfigError, match=f"{people} healthy people"):
            fitted.image_threshold(percent / 100)
        return
    assert people >= fewest_people(percent / 100)
    threshold = fitted.image_threshold(percent / 100)
    for score in (*scores, *(scores + 1e-9), *(scores - 1e-9), 0.0, 2.0):
        assert (score > threshold) == (fitted.p_value(score) <= percent / 100 + 1e-12)


def test_the_fewest_people_for_a_rate(of_people):
    assert (fewest_people(0.05), fewest_people(0.01), fewest_people(0.1)) == (19, 99, 9)
    known = [(19, 0.05, 18), (99, 0.01, 98), (20, 0.05, 19), (39, 0.05, 37)]
    for people, rate, threshold in known:
        assert of_people(range(people)).image_threshold(rate) == threshold
    with pytest.raises(ConfigError, match="calibrate on 19 or more"):
        of_people(range(18)).image_threshold(0.05)
    for rate in (0, 1, -1):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            of_people(range(19)).image_threshold(rate)


def test_healthy_people_exceed_the_image_threshold_at_most_at_the_rate():
    """Of 19 people with three slices each, a new one exceeds it in 1 of 20 cases."""
    rng, alarms = np.random.default_rng(0), 0
    subjects = tuple(np.repeat(np.arange(19), 3).tolist())
    for _ in range(4000):
        scores = rng.lognormal(size=20)[:, None] + 0.1 * rng.random((20, 3))
        fitted = Calibration(0.1, 0.05, {}, tuple(scores[:19].ravel().tolist()), subjects, {})
        alarms += scores[19].max() > fitted.image_threshold(0.05)
    assert alarms / 4000 == pytest.approx(0.05, abs=0.011)  # three standard errors


def test_exact_intervals_of_a_rate(of_people):
    fitted = of_people(range(39))
    rate = fitted.above(fitted.image_threshold(0.05))
    assert (rate.count, rate.total) == (1, 39)
    assert (rate.low, rate.high) == pytest.approx((0.000649, 0.134767), abs=1e-5)
    assert count_rate(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
