"""The two thresholds, of people and of pixels, and a share with its interval."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


@dataclass(frozen=True)
class Rate:
    """A share `count` of `total`, with its exact 95 % interval (Clopper and Pearson 1934)."""

    count: int
    total: int
    low: float
    high: float


def count_rate(count: int, total: int) -> Rate:
    """Return the share `count` of `total`, with its interval."""
    interval = binomtest(count, total).proportion_ci(0.95, method="exact")
    return Rate(count, total, float(interval.low), float(interval.high))


def image_rank(people: int, subject_fpr: float) -> int:
    """Return the k for which the k-th highest score of so many healthy people is the image
    threshold (split conformal prediction); 0 where the people are too few for the rate."""
    return math.floor((people + 1) * subject_fpr + 1e-9)


def fewest_people(subject_fpr: float) -> int:
    """Return how many healthy people a false positive rate takes: n allow 1 / (n + 1) at best."""
    return math.ceil(1 / subject_fpr - 1e-9) - 1


def pixel_threshold(maps: np.ndarray, pixel_fpr: float) -> float:
    """Return the smallest of the values that at most this share of them exceeds."""
    allowed = math.floor(pixel_fpr * maps.size * (1 + 1e-12))  # 0.29 * 100 is 28.999999999999996
    rank = maps.size - 1 - allowed
    return float(np.partition(maps, rank, axis=None)[rank])
