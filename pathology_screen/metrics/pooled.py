"""Statistics of all subjects' values pooled, for many weightings of the subjects at once.

A bootstrap resample of subjects gives each subject a whole number: how often it was drawn. Here a
statistic is prepared once and then evaluated for thousands of such weightings, exactly as if the
values were repeated and sorted anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array, csr_array
from sklearn.metrics import average_precision_score

from pathology_screen.errors import ConfigError, InputError

Subjects = Sequence[str] | np.ndarray
"""Names, of whom each value belongs to."""

CELLS = 2_000_000
"""Thresholds times weightings that are worked on at a time; 16 MB an array."""


@dataclass(frozen=True)
class PooledStatistic:
    """A number computed from the values of many subjects.

    Attributes:
        subjects: (S,) names, each once, sorted.
        evaluate: weights (R, S), at least 0 -> the statistic under each of the R weightings, (R,);
            NaN where it is not defined, as an AUROC without any healthy subject.
    """

    subjects: np.ndarray
    evaluate: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The statistic of the values as they are."""
        return float(self.evaluate(np.ones((1, len(self.subjects))))[0])


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the average precision, 0 to 1: the AUPRC of the paper's tables, whose chance level is
    the share of abnormal pixels.

    Args:
        labels: any shape, True or 1 where abnormal.
        scores: the same shape; higher is more abnormal.

    Raises:
        ConfigError: if the shapes differ, a label is neither 0 nor 1, or only one class is there.
        InputError: "not_finite", if a score is NaN or infinite.

    >>> average_precision([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])
    0.8333333333333333
    """
    return float(average_precision_score(*_two_classes(labels, scores)))


def pooled_mean(values: ArrayLike, subjects: Subjects) -> PooledStatistic:
    """Prepare the mean of values (N,), of which the i-th belongs to the i-th of N subjects; names
    repeat.

    Raises:
        ConfigError: if the lengths differ.
        InputError: "not_finite".

    >>> mean = pooled_mean([1.0, 2.0, 6.0], ["a", "a", "b"])
    >>> mean.value, mean.evaluate(np.array([[2.0, 0.0]])).item()
    (3.0, 1.5)
    """
    values = np.asarray(values, np.float64)
    names, index = _subject_of_each(values, subjects)
    _check_finite(values)
    sums = np.bincount(index, values.ravel(), len(names))
    counts = np.bincount(index, minlength=len(names))
    return PooledStatistic(names, lambda weights: _ratio(weights @ sums, weights @ counts))


def pooled_auroc(labels: ArrayLike, scores: ArrayLike, subjects: Subjects) -> PooledStatistic:
    """Prepare the area under the ROC of all scores pooled; equal to scikit-learn's under weights.

    Args:
        labels: (N, ...), True or 1 where abnormal: images (N,), or pixels (N, 1, H, W).
        scores: the same shape; higher is more abnormal.
        subjects: whom each of the N images belongs to; names repeat.

    Raises:
        ConfigError, InputError: as `average_precision`; ConfigError also for other lengths.

    >>> pooled_auroc([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], ["a", "b", "c", "d"]).value
    0.75
    """
    ranking = _Ranking(labels, scores, subjects)

    def auroc(weights: np.ndarray) -> np.ndarray:
        positives, negatives, ties = ranking.counts(weights)
        higher = negatives.cumsum(axis=0) - ties / 2  # negatives that a positive loses against
        total = weights @ ranking.negatives_of_subject
        won = (positives * (total - higher)).sum(axis=0)
        return _ratio(won, positives.sum(axis=0) * total)

    return PooledStatistic(ranking.subjects, in_parts(auroc, ranking.thresholds))


def pooled_average_precision(
    labels: ArrayLike, scores: ArrayLike, subjects: Subjects
) -> PooledStatistic:
    """Prepare the average precision (AUPRC) of all scores pooled; arguments and errors as in
    `pooled_auroc`.

    >>> pooled_average_precision([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], ["a", "b", "c", "d"]).value
    0.8333333333333333
    """
    ranking = _Ranking(labels, scores, subjects)

    def auprc(weights: np.ndarray) -> np.ndarray:
        positives, negatives, _ = ranking.counts(weights)
        true = positives.cumsum(axis=0)
        precision = _ratio(true, true + negatives.cumsum(axis=0), undefined=0.0)
        return _ratio((positives * precision).sum(axis=0), true[-1])

    return PooledStatistic(ranking.subjects, in_parts(auprc, ranking.thresholds))


def combined(function: Callable[..., np.ndarray], *statistics: PooledStatistic) -> PooledStatistic:
    """Combine statistics by a function, such as a ratio, over all of their subjects.

    Args:
        function: arrays (R,), one for each statistic -> (R,).
        statistics: a subject of one name in two of them is one person, drawn in both.

    >>> one, other = pooled_mean([3.0, 5.0], ["a", "b"]), pooled_mean([2.0], ["c"])
    >>> combined(np.divide, one, other).value
    2.0
    """
    subjects = np.unique(np.concatenate([statistic.subjects for statistic in statistics]))
    columns = [np.searchsorted(subjects, statistic.subjects) for statistic in statistics]

    def evaluate(weights: np.ndarray) -> np.ndarray:
        return function(*(one.evaluate(weights[:, own]) for one, own in zip(statistics, columns)))

    return PooledStatistic(subjects, evaluate)


def averaged(*statistics: PooledStatistic) -> PooledStatistic:
    """Average statistics, over the union of their subjects.

    >>> averaged(pooled_mean([3.0, 5.0], ["a", "b"]), pooled_mean([2.0], ["c"])).value
    3.0
    """
    return combined(lambda *values: np.mean(values, axis=0), *statistics)


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


class _Ranking:
    """Scores sorted once: at each distinct score of a positive (a threshold, from the highest
    down), how many values every subject adds to those called abnormal.

    Attributes:
        subjects: (S,) names.
        negatives_of_subject: (S,) how many normal values each subject has.
        thresholds: K, how many there are.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike, subjects: Subjects) -> None:
        self.subjects, index = _subject_of_each(np.asarray(scores), subjects)
        abnormal, flat = _two_classes(labels, scores)
        self.negatives_of_subject = np.bincount(index[~abnormal], minlength=len(self.subjects))
        thresholds = np.unique(flat[abnormal])
        self.thresholds = len(thresholds)
        below = np.searchsorted(thresholds, flat, side="right") - 1  # highest one reached, or -1
        row, reaches = len(thresholds) - 1 - below, below >= 0
        tied = ~abnormal & reaches & (thresholds[below] == flat)

        def count(values: np.ndarray) -> csr_array:
            places = (row[values], index[values])
            shape = (len(thresholds), len(self.subjects))
            return coo_array((np.ones(len(places[0])), places), shape=shape).tocsr()

        self._counts = [count(values) for values in (abnormal, ~abnormal & reaches, tied)]

    def counts(self, weights: np.ndarray) -> list[np.ndarray]:
        """Positives, negatives, and negatives equal to it, that a threshold adds: each (K, R)."""
        return [count @ weights.T for count in self._counts]


def _two_classes(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool and scores, both flat, checked as `average_precision` promises."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape:
        raise ConfigError(f"labels {labels.shape} and scores {scores.shape} differ in shape")
    _check_finite(scores)
    abnormal = labels.astype(bool)
    if not np.array_equal(abnormal, labels):
        raise ConfigError("labels must be 0 (normal) or 1 (abnormal); binarise soft masks before")
    if not 0 < abnormal.sum() < abnormal.size:
        raise ConfigError(
            f"both classes are needed, but {abnormal.sum()} of {abnormal.size} labels are abnormal"
        )
    return abnormal.ravel(), scores.ravel()


def _check_finite(values: np.ndarray) -> None:
    if wrong := np.count_nonzero(~np.isfinite(values)):
        raise InputError("not_finite", f"{wrong} of {values.size} values")


def _subject_of_each(values: np.ndarray, subjects: Subjects) -> tuple[np.ndarray, np.ndarray]:
    """Distinct names, and the index of its subject for each value, flat."""
    if values.ndim == 0 or len(values) != len(subjects) or values.size == 0:
        raise ConfigError(
            f"values of shape {values.shape} and {len(subjects)} subjects do not go together"
        )
    names, index = np.unique(np.asarray(list(subjects), dtype=str), return_inverse=True)
    return names, np.repeat(index, values.size // len(values))


def _ratio(numerator: np.ndarray, denominator: np.ndarray, undefined: float = np.nan) -> np.ndarray:
    out = np.full(denominator.shape, undefined)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)
