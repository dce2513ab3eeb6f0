"""How well scores tell abnormal images, or pixels, from normal ones (paper, Tables 1b and 2a)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score

from pathology_screen.errors import ConfigError, InputError


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the receiver operating characteristic, 0 to 1.

    Args:
        labels: any shape, True or 1 where abnormal: images (N,), pixels of pooled maps (N, 1, H,
            W).
        scores: the same shape; higher is more abnormal.

    Raises:
        ConfigError: if the shapes differ, a label is neither 0 nor 1, or only one class is there.
        InputError: "not_finite", if a score is NaN or infinite.
    """
    return float(roc_auc_score(*two_classes(labels, scores)))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision, 0 to 1: the AUPRC of the paper's tables. Arguments and errors as in
    `auroc`.

    Chance level is the share of abnormal images or pixels.
    """
    return float(average_precision_score(*two_classes(labels, scores)))


def two_classes(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool and scores, both flat, checked as `auroc` promises."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape:
        raise ConfigError(f"labels {labels.shape} and scores {scores.shape} differ in shape")
    if not np.isfinite(scores).all():
        raise InputError(
            "not_finite", f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} scores"
        )
    abnormal = labels.astype(bool)
    if not np.array_equal(abnormal, labels):
        raise ConfigError(
            "labels must be 0 (normal) or 1 (abnormal); binarise soft masks beforehand"
        )
    if not 0 < abnormal.sum() < abnormal.size:
        raise ConfigError(
            f"both classes are needed, but {abnormal.sum()} of {abnormal.size} labels are abnormal"
        )
    return abnormal.ravel(), scores.ravel()
