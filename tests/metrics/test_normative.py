"""Indices of normative learning, against their formulas written out."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pathology_screen.errors import ConfigError
from pathology_screen.metrics.normative import (
    anomaly_to_healthy,
    fit_normal,
    frechet_distance,
    harmonic_mean,
    normative_score,
    quality_index,
    repaired_share,
)
from pathology_screen.metrics.pooled import bootstrap_interval


def array(*values):
    return np.array(values, float)


def names(n):
    return [f"p{i:02}" for i in range(n)]


def written_out(features, reference):
    """The distance as it stands in the literature, with the root of a product of covariances."""
    means = features.mean(axis=0) - reference.mean(axis=0)
    own, other = (np.cov(each, rowvar=False) for each in (features, reference))
    return means @ means + np.trace(own + other - 2 * np.real(sqrtm(own @ other)))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_indices_are_their_formulas():
    mae, lpips, ssim = (torch.tensor(x) for x in ([0.0, 0.1, 0.2], [0.0, 0.2, 1.3], [1, 0.5, -0.1]))
    found = quality_index(mae, lpips, ssim)
    assert found.tolist() == pytest.approx([1, 0.9 * 0.8 * 0.5, 0])

    # no way, half of it, all, beyond, and backwards; and no way to go
    unseen, pathological = array(2, 2, 2, 2, 2, 5), array(10, 10, 10, 10, 10, 5)
    restored = array(10, 6, 2, 1, 12, 1)
    found = anomaly_to_healthy(unseen, pathological, restored)
    assert found.tolist() == [0, 0.5, 1, 1, 0, 0]

    found = harmonic_mean(array(1, 0.95, 0.5, 0), array(1, 0.03, 0, 0))
    assert found.tolist() == pytest.approx([1, 2 * 0.95 * 0.03 / 0.98, 0, 0])

    # a restoration, half of one, a copy, something worse, and nothing to repair
    found = repaired_share(array(0.4, 0.4, 0.4, 0.4, 0), array(0, 0.2, 0.4, 0.8, 0.1))
    assert found.tolist() == [1, 0.5, 0, 0, 0]

    # (H(RQI, CACI) + AHI) / 2 of the values printed for RA and a copying autoencoder
    found = normative_score(array(0.66, 0.88), array(0.16, 0), array(0.22, 0.06))
    assert found.tolist() == pytest.approx([(0.33 + 0.16) / 2, 0.88 * 0.06 / 0.94])


def test_distance_of_one_feature_is_that_of_means_and_deviations(rng):
    features, reference = rng.normal(1, 2, (30, 1)), rng.normal(0, 1, (50, 1))
    found = frechet_distance(features, names(30), fit_normal(reference)).value
    spread = features.std(ddof=1) - reference.std(ddof=1)
    assert found == pytest.approx((features.mean() - reference.mean()) ** 2 + spread**2)


@pytest.mark.parametrize("n", [4, 40])
def test_distance_is_that_of_the_literature(rng, n):
    """Also of fewer slices than features, whose covariance has no full rank."""
    features = rng.normal(0.5, 1, (n, 6)) @ rng.normal(size=(6, 6))
    reference = rng.normal(size=(60, 6)) * np.arange(1, 7)
    statistic = frechet_distance(features, names(n), fit_normal(reference))
    assert statistic.value == pytest.approx(written_out(features, reference), rel=1e-6)
    same = frechet_distance(reference, names(60), fit_normal(reference))
    assert same.value == pytest.approx(0, abs=1e-6)


def test_weights_are_repetitions_of_all_that_a_subject_has(rng):
    features, reference = rng.normal(size=(7, 3)), rng.normal(size=(20, 3))
    subjects = np.array(["b", "a", "a", "c", "b", "d", "d"])
    statistic = frechet_distance(features, subjects, fit_normal(reference))
    assert statistic.subjects.tolist() == ["a", "b", "c", "d"]
    drawn = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 3, 0, 1]])
    for found, weights in zip(statistic.evaluate(drawn), drawn):
        often = dict(zip("abcd", weights))
        repeated = np.repeat(features, [often[name] for name in subjects], axis=0)
        assert found == pytest.approx(written_out(repeated, reference), rel=1e-6)
    low, high = bootstrap_interval(statistic, resamples=100)
    assert 0 < low < high


def test_a_single_slice_has_no_distance(rng):
    reference = rng.normal(size=(20, 3))
    assert np.isnan(frechet_distance(reference[:1], ["a"], fit_normal(reference)).value)
    with pytest.raises(ConfigError, match="two of them"):
        fit_normal(reference[:1])
