"""Detection of abnormal images and pixels: scikit-learn's numbers, worked examples and refusals."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.metrics import auroc, average_precision


def test_a_worked_example():
    labels, scores = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
    assert auroc(labels, scores) == pytest.approx(3 / 4)  # 3 of 4 pairs in order
    assert average_precision(labels, scores) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_scores_that_all_tie_are_chance():
    labels = np.arange(10) < 3
    assert auroc(labels, np.ones(10)) == 0.5
    assert average_precision(labels, np.ones(10)) == pytest.approx(0.3)


def test_pixels_of_pooled_maps_equal_scikit_learns():
    rng = np.random.default_rng(0)
    masks = rng.random((4, 1, 16, 16)) < 0.1
    maps = rng.gamma(1, size=masks.shape).round(2) + masks
    assert auroc(masks, maps) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-9)
    expected = average_precision_score(masks.ravel(), maps.ravel())
    assert average_precision(masks.astype(np.uint8), maps) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", [auroc, average_precision])
def test_what_cannot_be_scored_is_refused(metric):
    with pytest.raises(ConfigError, match="both classes are needed, but 0 of 3"):
        metric([0, 0, 0], [1, 2, 3])
    with pytest.raises(ConfigError, match="both classes are needed, but 2 of 2"):
        metric([True, True], [1, 2])
    with pytest.raises(ConfigError, match="both classes"):
        metric([], [])
    with pytest.raises(ConfigError, match="differ in shape"):
        metric([0, 1], [1, 2, 3])
    with pytest.raises(ConfigError, match="binarise"):
        metric([0, 0.5, 1], [1, 2, 3])
    with pytest.raises(InputError) as refusal:
        metric([0, 1, 1], [1, np.nan, np.inf])
    assert refusal.value.code == "not_finite"
    assert "2 of 3" in refusal.value.detail
