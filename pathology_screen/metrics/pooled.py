"""Statistics of all subjects' values pooled, for many weightings of the subjects at once.

A bootstrap resample of subjects gives each subject a whole number: how often it was drawn. Here a
statistic is prepared once and then evaluated for thousands of such weightings, exactly as if the
values were repeated and sorted anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array, csr_array

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.metrics.detection import two_classes

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


def pooled_mean(values: ArrayLike, subjects: Sequence[str]) -> PooledStatistic:
    """Mean of values (N,), of which the i-th belongs to the i-th of N subjects; names repeat.

    Raises:
        ConfigError: if the lengths differ.
        InputError: "not_finite".
    """
    values = np.asarray(values, np.float64)
    names, index = _subject_of_each(values, subjects)
    if not np.isfinite(values).all():
        raise InputError(
            "not_finite", f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values"
        )
    sums = np.bincount(index, values.ravel(), len(names))
    counts = np.bincount(index, minlength=len(names))
    return PooledStatistic(names, lambda weights: _ratio(weights @ sums, weights @ counts))


def pooled_auroc(labels: ArrayLike, scores: ArrayLike, subjects: Sequence[str]) -> PooledStatistic:
    """Area under the ROC of all scores pooled; under weights equal to scikit-learn's with
    `sample_weight`.

    Args:
        labels: (N, ...), True or 1 where abnormal: images (N,), or pixels (N, 1, H, W).
        scores: the same shape; higher is more abnormal.
        subjects: whom each of the N images belongs to; names repeat.

    Raises:
        ConfigError, InputError: as `detection.auroc`; ConfigError also where there are not N
            subjects.
    """
    ranking = _Ranking(labels, scores, subjects)

    def auroc(weights: np.ndarray) -> np.ndarray:
        positives, negatives, ties = ranking.counts(weights)
        higher = negatives.cumsum(axis=0) - ties / 2  # negatives that a positive loses against
        total = weights @ ranking.negatives_of_subject
        won = (positives * (total - higher)).sum(axis=0)
        return _ratio(won, positives.sum(axis=0) * total)

    return PooledStatistic(ranking.subjects, ranking.in_parts(auroc))


def pooled_average_precision(
    labels: ArrayLike, scores: ArrayLike, subjects: Sequence[str]
) -> PooledStatistic:
    """Average precision (AUPRC) of all scores pooled; arguments and errors as in `pooled_auroc`."""
    ranking = _Ranking(labels, scores, subjects)

    def average_precision(weights: np.ndarray) -> np.ndarray:
        positives, negatives, _ = ranking.counts(weights)
        true = positives.cumsum(axis=0)
        precision = _ratio(true, true + negatives.cumsum(axis=0), undefined=0.0)
        return _ratio((positives * precision).sum(axis=0), true[-1])

    return PooledStatistic(ranking.subjects, ranking.in_parts(average_precision))


def combined(function: Callable[..., np.ndarray], *statistics: PooledStatistic) -> PooledStatistic:
    """A function of several statistics, such as their mean or ratio, over the union of their
    subjects.

    Args:
        function: arrays (R,), one for each statistic -> (R,).
        statistics: a subject of the same name in two of them is the same person, and drawn in both
            or in neither.
    """
    subjects = np.unique(np.concatenate([statistic.subjects for statistic in statistics]))
    columns = [np.searchsorted(subjects, statistic.subjects) for statistic in statistics]

    def evaluate(weights: np.ndarray) -> np.ndarray:
        return function(*(one.evaluate(weights[:, own]) for one, own in zip(statistics, columns)))

    return PooledStatistic(subjects, evaluate)


class _Ranking:
    """Scores sorted once: at each distinct score of a positive (a threshold, from the highest
    down), how many values every subject adds to those called abnormal.

    Attributes:
        subjects: (S,) names.
        negatives_of_subject: (S,) how many normal values each subject has.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike, subjects: Sequence[str]) -> None:
        self.subjects, index = _subject_of_each(np.asarray(scores), subjects)
        abnormal, flat = two_classes(labels, scores)
        self.negatives_of_subject = np.bincount(index[~abnormal], minlength=len(self.subjects))
        thresholds = np.unique(flat[abnormal])
        below = (
            np.searchsorted(thresholds, flat, side="right") - 1
        )  # the highest threshold that a value reaches, or -1
        row, reaches = len(thresholds) - 1 - below, below >= 0
        tied = ~abnormal & reaches & (thresholds[below] == flat)
        self._positives, self._negatives, self._ties = (
            self._count(row[these], index[these], len(thresholds))
            for these in (abnormal, ~abnormal & reaches, tied)
        )

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positives, negatives, and negatives that equal the threshold, which each threshold adds:
        each (K, R)."""
        columns = weights.T
        return self._positives @ columns, self._negatives @ columns, self._ties @ columns

    def in_parts(
        self, statistic: Callable[[np.ndarray], np.ndarray]
    ) -> Callable[[np.ndarray], np.ndarray]:
        """The statistic for any number of weightings, in bounded memory; it remembers the last
        ones, since one method is compared with many under the same."""
        size = max(1, CELLS // self._positives.shape[0])

        @lru_cache(maxsize=4)
        def known(shape: tuple[int, int], content: bytes) -> np.ndarray:
            weights = np.frombuffer(content).reshape(shape)
            return np.concatenate(
                [statistic(weights[start : start + size]) for start in range(0, len(weights), size)]
            )

        return lambda weights: known(weights.shape, np.asarray(weights, np.float64).tobytes())

    def _count(self, rows: np.ndarray, subjects: np.ndarray, thresholds: int) -> csr_array:
        ones = np.ones(len(rows))
        return coo_array((ones, (rows, subjects)), shape=(thresholds, len(self.subjects))).tocsr()


def _subject_of_each(values: np.ndarray, subjects: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct names, and the index of its subject for each value, flat."""
    if values.ndim == 0 or len(values) != len(subjects) or values.size == 0:
        raise ConfigError(
            f"values of shape {values.shape} and {len(subjects)} subjects do not go together"
        )
    names, index = np.unique(np.asarray(list(subjects), dtype=str), return_inverse=True)
    return names, np.repeat(index, values.size // len(values))


def _ratio(numerator: np.ndarray, denominator: np.ndarray, undefined: float = np.nan) -> np.ndarray:
    return np.divide(
        numerator, denominator, out=np.full(denominator.shape, undefined), where=denominator > 0
    )
