"""The alarm that healthy people of another place score higher."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from pathology_screen.calibration import measure_drift
from pathology_screen.calibration.drift import ALARM, exceedance_law

RUNS = 20_000


def simulated(people, new, shift=0.0):
    """Numbers of new people above the 5 % threshold of so many people, and the law of them."""
    rng = np.random.default_rng(people + new)
    k = max(1, int((people + 1) * 0.05))
    threshold = np.sort(rng.lognormal(size=(RUNS, people)))[:, -k]
    scores = np.exp(rng.normal(shift, size=(RUNS, new)))
    return (scores > threshold[:, None]).sum(axis=1), exceedance_law(people, new, 0.05)


@pytest.mark.parametrize("new", [10, 30, 100])
@pytest.mark.parametrize("people", [15, 20, 40])
def test_without_drift_there_is_an_alarm_in_at_most_5_percent(people, new):
    """15 people are too few for a threshold of 5 %: their highest score stands for it."""
    counts, law = simulated(people, new)
    alarms = (law.sf(counts - 1) <= ALARM).mean()
    assert alarms <= ALARM + 3 * np.sqrt(ALARM * (1 - ALARM) / RUNS)
    expected = law.pmf(np.arange(new + 1))
    found = np.bincount(counts, minlength=new + 1) / RUNS
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / RUNS))


@pytest.mark.parametrize(
    ("people", "new", "power"), [(15, 30, 0.9), (20, 10, 0.85), (20, 30, 0.9), (40, 100, 0.99)]
)
def test_people_who_score_two_standard_deviations_higher_give_an_alarm(people, new, power):
    counts, law = simulated(people, new, shift=2.0)
    assert (law.sf(counts - 1) <= ALARM).mean() > power


def test_more_than_the_rate_is_no_reason_for_an_alarm():
    """Without drift more than 5 % of 30 people exceed the threshold of 20 in a third of cases."""
    counts, _ = simulated(20, 30)
    assert 0.3 < (counts / 30 > 0.05).mean() < 0.4


def test_the_parts_of_a_drift(of_people):
    """The p-value by hand: X of two, of beta-binomial(2, 1, 20)."""
    shipped = of_people(range(1, 21))
    for scores, count, p_value in (
        ([20, 19], 0, 1.0),
        ([21, 19], 1, 1 - 20 / 22),
        ([21, 22], 2, 2 / (21 * 22)),
    ):
        drift = measure_drift(shipped, of_people(scores))
        assert (drift.above.count, drift.above.total) == (count, 2)
        assert drift.p_value == pytest.approx(p_value) and drift.alarm == (p_value <= 0.05)
        assert drift.expected == pytest.approx(2 / 21)
        test = ks_2samp(scores, range(1, 21))
        assert (drift.distance, drift.distance_p_value) == (test.statistic, test.pvalue)


def test_the_rate_decides_the_threshold(of_people):
    shipped, local = of_people(range(1, 21)), of_people([18.5] * 5)
    assert measure_drift(shipped, local, 0.05).above.count == 0
    drift = measure_drift(shipped, local, 0.15)  # of 20 people the third highest
    assert drift.above.count == 5 and drift.alarm
