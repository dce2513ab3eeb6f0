"""From a path to an outcome."""

import numpy as np
import pytest


def test_the_score_is_the_mean_of_the_map_and_decides(slices, predictor, make_screener, make_calibration):
    result = make_screener()(slices[0])
    image = predictor.prepare({"image": str(slices[0])})["image"][0].numpy()
    assert np.array_equal(result.slice.image, image)
    assert result.score == pytest.approx(0.1 * image.mean(), rel=1e-5)
    assert result.outcome == "suspicious" and result.score > result.image_threshold == 0.02
    assert (result.percentile, result.p_value) == (100, pytest.approx(1 / 21))
    calm = make_screener(make_calibration([10.0 * score for score in range(1, 21)]))(slices[0])
    assert calm.outcome == "normal" and calm.percentile == 0 and calm.p_value == 1
    assert calm.score == result.score
