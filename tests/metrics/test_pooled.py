"""Pooled statistics under weights: as if the values of each subject were repeated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.metrics import pooled
from pathology_screen.metrics.pooled import (
    average_precision,
    averaged,
    combined,
    pooled_auroc,
    pooled_average_precision,
    pooled_mean,
)

REFERENCES = {pooled_auroc: roc_auc_score, pooled_average_precision: average_precision_score}


def test_a_worked_example():
    labels, scores = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
    expected = 1 / 2 * 1 + 1 / 2 * 2 / 3
    assert average_precision(labels, scores) == pytest.approx(expected)
    assert pooled_average_precision(labels, scores, "abcd").value == pytest.approx(expected)
    assert pooled_auroc(labels, scores, "abcd").value == 3 / 4  # 3 of 4 pairs in order
    assert pooled_auroc(labels, np.ones(4), "abcd").value == 0.5
    assert average_precision(labels, np.ones(4)) == 0.5


@settings(max_examples=100, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("statistic", REFERENCES)
def test_ranking_statistics_equal_scikit_learns_on_repeated_values(statistic, data):
    n = data.draw(st.integers(2, 40))
    values = st.sampled_from([-1.0, 0.0, 0.5, 0.50001, 2.0, 3.0])  # few, so that they tie
    labels = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    labels[:2] = [True, False]
    scores = np.array(data.draw(st.lists(values, min_size=n, max_size=n)))
    subjects = np.array(data.draw(st.lists(st.sampled_from("abcde"), min_size=n, max_size=n)))
    prepared = statistic(labels, scores, subjects)
    drawn = data.draw(st.lists(st.integers(0, 3), min_size=5, max_size=5))
    weights = np.array(drawn)[: len(prepared.subjects)]
    repeats = weights[np.searchsorted(prepared.subjects, subjects)]
    found = prepared.evaluate(weights[None].astype(float))[0]
    repeated = np.repeat(labels, repeats)
    if 0 < repeated.sum() < repeated.size:
        expected = REFERENCES[statistic](repeated, np.repeat(scores, repeats))
        assert found == pytest.approx(expected, abs=1e-9)
    elif statistic is pooled_auroc or not repeated.any():
        assert np.isnan(found)
    assert prepared.value == pytest.approx(REFERENCES[statistic](labels, scores), abs=1e-9)


@pytest.mark.parametrize("statistic", REFERENCES)
def test_pixels_in_float32_and_in_parts(statistic, monkeypatch):
    rng = np.random.default_rng(0)
    masks = rng.random((6, 1, 12, 12)) < 0.1
    maps = (rng.gamma(1, size=masks.shape) + masks).astype(np.float32).round(2)
    weights = rng.multinomial(3, [1 / 3] * 3, 7).astype(float)
    whole = statistic(masks, maps, "abcabc")
    repeats = weights[:, [0, 1, 2, 0, 1, 2]].repeat(144, axis=1)
    pixels = masks.ravel(), maps.ravel()
    expected = [REFERENCES[statistic](*pixels, sample_weight=each) for each in repeats]
    found = whole.evaluate(weights)
    assert found == pytest.approx(expected, abs=1e-9)
    assert whole.value == pytest.approx(REFERENCES[statistic](*pixels), abs=1e-9)
    monkeypatch.setattr(pooled, "CELLS", 1)
    in_parts = statistic(masks, maps, "abcabc").evaluate(weights)
    assert in_parts == pytest.approx(found, rel=1e-12)
    reverse = statistic(masks[::-1], maps[::-1], "cbacba")
    assert reverse.value == pytest.approx(whole.value, abs=1e-12)


def test_a_mean_counts_each_value_not_each_subject():
    mean = pooled_mean([1, 2, 3, 10], "aaab")
    assert mean.subjects.tolist() == ["a", "b"] and mean.value == 4
    found = mean.evaluate(np.array([[1.0, 0], [0, 2], [2, 1], [0, 0]]))
    assert found == pytest.approx([2, 10, (12 + 10) / 7, np.nan], nan_ok=True)


def test_statistics_of_overlapping_subjects_are_combined():
    labels = np.array([0, 0, 1, 1])
    pathology = pooled_auroc(labels, [1, 3, 2, 4], ["n0", "n1", "p0", "p1"])
    artefact = pooled_auroc(labels[1:], [3, 5, 1], ["n1", "a0", "a1"])
    weights = np.array([[2.0, 0, 0, 1, 1, 1]])  # the artefact twice, n1 alone, both pathologies
    halved = combined(lambda first, second: (first + second) / 2, pathology, artefact)
    for both in (averaged(pathology, artefact), halved):
        assert both.subjects.tolist() == ["a0", "a1", "n0", "n1", "p0", "p1"]
        assert both.value == pytest.approx((3 / 4 + 1 / 2) / 2)
        assert both.evaluate(weights)[0] == pytest.approx((1 / 2 + 1) / 2)


RANKINGS = (
    lambda labels, scores: average_precision(labels, scores),
    lambda labels, scores: pooled_auroc(labels, scores, "abc"[: len(scores)]),
    lambda labels, scores: pooled_average_precision(labels, scores, "abc"[: len(scores)]),
)


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize(
    ("labels", "scores", "error", "message"),
    [
        ([0, 0, 0], [1, 2, 3], ConfigError, "both classes are needed, but 0 of 3"),
        ([True, True], [1, 2], ConfigError, "both classes are needed, but 2 of 2"),
        ([0, 1], [1, 2, 3], ConfigError, "differ in shape"),
        ([0, 0.5, 1], [1, 2, 3], ConfigError, "binarise"),
        ([0, 1, 1], [1, np.nan, np.inf], InputError, "not_finite.* 2 of 3"),
    ],
)
def test_what_cannot_be_ranked_is_refused(ranking, labels, scores, error, message):
    with pytest.raises(error, match=message):
        ranking(labels, scores)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ConfigError, match="3 subjects"):
        pooled_auroc([0, 1], [1, 2], "abc")
    with pytest.raises(ConfigError, match="0 subjects"):
        pooled_mean([], [])
    with pytest.raises(InputError, match="not_finite.* 1 of 2"):
        pooled_mean([1, np.nan], "ab")
