"""Statistics of all subjects' values pooled, and how far they would vary with other subjects.

Slices, pixels and boxes of one subject are not independent, so a bootstrap draws subjects, each
with all that belongs to it: a resample says how often each was drawn. A statistic is prepared once
and then evaluated for thousands of such weightings, exactly as if the values were repeated and
sorted anew. Percentile intervals of few subjects are too narrow: those of a mean, named 95 %, cover
the truth in 94 % of studies of 40 to 80 subjects, 93 % of 20 and 90 % of 8 (measured and by
theory).
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array, csr_array
from sklearn.metrics import average_precision_score

from pathology_screen.errors import ConfigError, InputError

Subjects = Sequence[str] | np.ndarray
"""Names, of whom each value belongs to."""
Groups = Mapping[str, Hashable]
"""Subject -> group, such as healthy or pathological."""

CONFIDENCE = 0.95
CELLS = 2_000_000
"""Thresholds times weightings that are worked on at a time; 16 MB an array."""


@dataclass(frozen=True)
class PooledStatistic:
    """A number computed from the values of many subjects: their names (S,), each once, sorted; and
    weights (R, S), at least 0 -> the statistic under each of the R weightings, (R,), NaN where it
    is not defined, as an AUROC without any healthy subject."""

    subjects: np.ndarray
    evaluate: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The statistic of the values as they are."""
        return float(self.evaluate(np.ones((1, len(self.subjects))))[0])


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """The average precision, 0 to 1, of scores of any shape, higher where a label is 1: the AUPRC
    of the paper's tables, whose chance level is the share of abnormal pixels.

    Raises:
        ConfigError: if only one class is there.
        InputError: "not_finite", if a score is NaN or infinite.
    """
    return float(average_precision_score(*_two_classes(labels, scores)))


def pooled_mean(values: ArrayLike, subjects: Subjects) -> PooledStatistic:
    """The mean of values (N,), of which the i-th belongs to the i-th of N subjects; names repeat.
    InputError "not_finite" as `average_precision`."""
    values = np.asarray(values, np.float64)
    names, index = subject_of_each(values, subjects)
    _check_finite(values)
    sums = np.bincount(index, values.ravel(), len(names))
    counts = np.bincount(index, minlength=len(names))
    return PooledStatistic(names, lambda weights: _ratio(weights @ sums, weights @ counts))


def pooled_auroc(labels: ArrayLike, scores: ArrayLike, subjects: Subjects) -> PooledStatistic:
    """The area under the ROC of all scores pooled, equal to scikit-learn's under weights: labels
    and scores (N, ...) of images or of their pixels, and whom each of the N images belongs to.
    Errors as in `average_precision`."""
    names, normal, counts = _ranked(labels, scores, subjects)

    def auroc(weights: np.ndarray) -> np.ndarray:
        positives, negatives, ties = (count @ weights.T for count in counts)  # (K, R) each
        higher = negatives.cumsum(axis=0) - ties / 2  # negatives that a positive loses against
        total = weights @ normal
        won = (positives * (total - higher)).sum(axis=0)
        return _ratio(won, positives.sum(axis=0) * total)

    return PooledStatistic(names, in_parts(auroc, counts[0].shape[0]))


def pooled_average_precision(
    labels: ArrayLike, scores: ArrayLike, subjects: Subjects
) -> PooledStatistic:
    """The average precision (AUPRC) of all scores pooled; the rest as in `pooled_auroc`."""
    names, _, counts = _ranked(labels, scores, subjects)

    def auprc(weights: np.ndarray) -> np.ndarray:
        positives, negatives = (count @ weights.T for count in counts[:2])
        true = positives.cumsum(axis=0)
        precision = _ratio(true, true + negatives.cumsum(axis=0), undefined=0.0)
        return _ratio((positives * precision).sum(axis=0), true[-1])

    return PooledStatistic(names, in_parts(auprc, counts[0].shape[0]))


def combined(function: Callable[..., np.ndarray], *statistics: PooledStatistic) -> PooledStatistic:
    """Combine statistics by a function of arrays (R,), one for each, such as a ratio, over all of
    their subjects; one of the same name in two of them is one person, drawn in both."""
    subjects = np.unique(np.concatenate([statistic.subjects for statistic in statistics]))
    columns = [np.searchsorted(subjects, statistic.subjects) for statistic in statistics]

    def evaluate(weights: np.ndarray) -> np.ndarray:
        return function(*(one.evaluate(weights[:, own]) for one, own in zip(statistics, columns)))

    return PooledStatistic(subjects, evaluate)


def averaged(*statistics: PooledStatistic) -> PooledStatistic:
    """The mean of statistics, over the union of their subjects."""
    return combined(lambda *values: np.mean(values, axis=0), *statistics)


def bootstrap_interval(
    statistic: PooledStatistic, groups: Groups | None = None, resamples: int = 2000
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval over subjects, always of the same draws; groups keep
    their sizes in every resample. ConfigError if the statistic is undefined in some resample, as an
    AUROC without healthy subjects."""
    return _bounds(_resampled(statistic, groups, resamples))


def paired_difference(
    first: PooledStatistic,
    second: PooledStatistic,
    groups: Groups | None = None,
    resamples: int = 2000,
) -> tuple[float, float, float, float]:
    """The first method minus the second on the same subjects, who are drawn for both together: the
    difference, its interval, and the two-sided p-value of no difference.

    The p-value is twice the smaller share of resamples, the observed data counted as one more, in
    which the difference is at most, or at least, zero: 2 / (resamples + 1) or more. ConfigError as
    in `bootstrap_interval`, and for different subjects.
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
    return (difference.value, *_bounds(drawn), p_value)


def draw_weights(subjects: np.ndarray, groups: Groups | None, resamples: int) -> np.ndarray:
    """How often each of S subjects is drawn in each of R resamples: (R, S), float64."""
    members: dict[Hashable, list[int]] = {}
    for index, subject in enumerate(subjects.tolist()):
        members.setdefault(None if groups is None else groups[subject], []).append(index)
    rng = np.random.default_rng(0)
    weights = np.zeros((resamples, len(subjects)))
    for own in members.values():
        weights[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), resamples)
    return weights


def in_parts(
    statistic: Callable[[np.ndarray], np.ndarray], cells: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Evaluate a statistic that takes so many cells a weighting in parts, in bounded memory; the
    last ones are remembered, since one method is compared with many under the same."""
    size = max(1, CELLS // cells)

    @lru_cache(maxsize=4)
    def known(shape: tuple[int, int], content: bytes) -> np.ndarray:
        weights = np.frombuffer(content).reshape(shape)
        parts = (weights[start : start + size] for start in range(0, len(weights), size))
        return np.concatenate([statistic(part) for part in parts])

    return lambda weights: known(weights.shape, np.asarray(weights, np.float64).tobytes())


def subject_of_each(values: np.ndarray, subjects: Subjects) -> tuple[np.ndarray, np.ndarray]:
    """Distinct names, and for each of values (N, ...), flat, the index of its subject."""
    names, index = np.unique(np.asarray(list(subjects), dtype=str), return_inverse=True)
    return names, np.repeat(index, values.size // len(values))


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


def _ranked(
    labels: ArrayLike, scores: ArrayLike, subjects: Subjects
) -> tuple[np.ndarray, np.ndarray, list[csr_array]]:
    """Scores sorted once: S names, how many normal values each has, and what each subject adds at
    each distinct score of a positive (a threshold, from the highest of K down) to those called
    abnormal: positives, negatives, and negatives equal to it, (K, S) each."""
    names, index = subject_of_each(np.asarray(scores), subjects)
    abnormal, flat = _two_classes(labels, scores)
    thresholds = np.unique(flat[abnormal])
    below = np.searchsorted(thresholds, flat, side="right") - 1  # highest one reached, or -1
    row, reaches = len(thresholds) - 1 - below, below >= 0
    tied = ~abnormal & reaches & (thresholds[below] == flat)

    def count(values: np.ndarray) -> csr_array:
        places = (row[values], index[values])
        ones, shape = np.ones(len(places[0])), (len(thresholds), len(names))
        return coo_array((ones, places), shape=shape).tocsr()

    normal = np.bincount(index[~abnormal], minlength=len(names))
    return names, normal, [count(values) for values in (abnormal, ~abnormal & reaches, tied)]


def _two_classes(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool and scores, both flat, checked as `average_precision` promises."""
    abnormal, scores = np.asarray(labels, bool), np.asarray(scores)
    _check_finite(scores)
    if not 0 < abnormal.sum() < abnormal.size:
        raise ConfigError(
            f"both classes are needed, but {abnormal.sum()} of {abnormal.size} labels are abnormal"
        )
    return abnormal.ravel(), scores.ravel()


def _check_finite(values: np.ndarray) -> None:
    if wrong := np.count_nonzero(~np.isfinite(values)):
        raise InputError("not_finite", f"{wrong} of {values.size} values")


def _ratio(numerator: np.ndarray, denominator: np.ndarray, undefined: float = np.nan) -> np.ndarray:
    out = np.full(denominator.shape, undefined)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)
