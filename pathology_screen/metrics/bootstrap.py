"""Bootstrap over subjects: how far a number or a difference would vary with others.

Slices, pixels and boxes of one subject are not independent, so subjects are drawn, each with all
that belongs to it. Percentile intervals of few subjects are too narrow: those of a mean, named 95
%, cover the truth in 94 % of studies of 40 to 80 subjects, 93 % of 20 and 90 % of 8 (measured and
by theory).
"""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np

from pathology_screen.errors import ConfigError
from pathology_screen.metrics.pooled import PooledStatistic, combined

CONFIDENCE = 0.95
Groups = Mapping[str, Hashable]
"""Subject -> group, such as healthy or pathological."""


class Interval(NamedTuple):
    """A statistic and the bounds of its percentile bootstrap interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two methods, its interval, and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    statistic: PooledStatistic, groups: Groups | None = None, *, resamples: int = 2000
) -> Interval:
    """Return the 95 % percentile bootstrap interval over subjects, always of the same draws.

    Args:
        statistic: see `metrics.pooled`.
        groups: each keeps its size in every resample; None draws from all subjects alike.
        resamples: how many times subjects are drawn.

    Raises:
        ConfigError: if a subject has no group, a group (or the whole) has fewer than two subjects,
            or the statistic is undefined in some resample, as an AUROC without healthy ones.

    >>> from pathology_screen.metrics.pooled import pooled_mean
    >>> interval = bootstrap_interval(pooled_mean([1.0, 2.0, 3.0], ["a", "b", "c"]))
    >>> interval.low <= interval.value <= interval.high, interval.value
    (True, 2.0)
    """
    return Interval(statistic.value, *_bounds(_resampled(statistic, groups, resamples)))


def paired_difference(
    first: PooledStatistic,
    second: PooledStatistic,
    groups: Groups | None = None,
    *,
    resamples: int = 2000,
) -> Difference:
    """Compare the first method minus the second on the same subjects, who are drawn for both
    together.

    The p-value is twice the smaller share of resamples, the observed data counted as one more, in
    which the difference is at most, or at least, zero: 2 / (resamples + 1) or more. Arguments and
    errors as in `bootstrap_interval`; ConfigError also for different subjects.

    >>> from pathology_screen.metrics.pooled import pooled_mean
    >>> one, other = (pooled_mean([1.0 + n, 2.0 + n], ["a", "b"]) for n in (1, 0))
    >>> paired_difference(one, other, resamples=999)
    Difference(value=1.0, low=1.0, high=1.0, p_value=0.002)
    """
    if not np.array_equal(first.subjects, second.subjects):
        differing = ", ".join(sorted(set(first.subjects) ^ set(second.subjects))[:5])
        raise ConfigError(
            f"the methods were not measured on the same subjects: {differing} in one of them only"
        )
    difference = combined(np.subtract, first, second)
    drawn = _resampled(difference, groups, resamples)
    tail = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p_value = min(1.0, float(2 * (1 + tail) / (1 + resamples)))
    return Difference(difference.value, *_bounds(drawn), p_value)


def draw_weights(subjects: np.ndarray, groups: Groups | None, resamples: int) -> np.ndarray:
    """Draw how often each of S subjects is drawn in each of R resamples: (R, S), float64.

    >>> draw_weights(np.array(["a", "b", "c"]), None, resamples=2).sum(axis=1).tolist()
    [3.0, 3.0]
    """
    members: dict[Hashable, list[int]] = {}
    for index, subject in enumerate(subjects.tolist()):
        if groups is not None and subject not in groups:
            raise ConfigError(f'the subject "{subject}" has no group')
        members.setdefault(None if groups is None else groups[subject], []).append(index)
    rng = np.random.default_rng(0)
    weights = np.zeros((resamples, len(subjects)))
    for name, own in members.items():
        n = len(own)
        if n < 2:
            where = "the statistic" if groups is None else f"the group {name!r}"
            raise ConfigError(
                f"a bootstrap over subjects needs at least two of them, {where} has {n}"
            )
        weights[:, own] = rng.multinomial(n, np.full(n, 1 / n), resamples)
    return weights


def _resampled(statistic: PooledStatistic, groups: Groups | None, resamples: int) -> np.ndarray:
    drawn = statistic.evaluate(draw_weights(statistic.subjects, groups, resamples))
    if undefined := np.count_nonzero(~np.isfinite(drawn)):
        raise ConfigError(
            f"the statistic is undefined in {undefined} of {resamples} resamples: name the group "
            "of each subject, so that every resample holds all groups"
        )
    return drawn


def _bounds(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(drawn, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)
