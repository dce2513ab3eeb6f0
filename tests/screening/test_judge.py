"""What is suspicious, and what is not judged."""

import numpy as np
import pytest

from pathology_screen.errors import ConfigError


def test_the_score_is_the_mean_of_the_map_and_decides(
    slices, predictor, make_screener, make_calibration
):
    result = make_screener()(slices[0])
    image = predictor.prepare({"image": str(slices[0])})["image"][0].numpy()
    assert np.array_equal(result.slice.image, image)
    assert result.score == pytest.approx(0.1 * image.mean(), rel=1e-5)
    assert result.outcome == "suspicious" and result.score > result.image_threshold == 0.02
    assert (result.percentile, result.p_value) == (100, pytest.approx(1 / 21))
    calm = make_screener(make_calibration([10.0 * score for score in range(1, 21)]))(slices[0])
    assert calm.outcome == "normal" and calm.percentile == 0 and calm.p_value == 1
    assert calm.score == result.score


def test_the_pixel_threshold_has_no_part_in_the_outcome(slices, make_screener, make_calibration):
    for pixel_threshold in (0.01, 0.09, 5.0):
        result = make_screener(make_calibration(pixel_threshold=pixel_threshold))(slices[1])
        assert result.outcome == "suspicious"
        assert bool(result.regions) == (pixel_threshold < 1)


def test_another_plane_is_mapped_and_not_judged(brain, make_brain_screener):
    result = make_brain_screener()(brain, plane_mm=40)
    assert (result.outcome, result.code) == ("not_assessable", "not_calibrated")
    assert "z = 40 mm; accepted: 23 mm" in result.reason
    assert result.score is None and result.map_volume.any() and result.slice.plane_mm == 40
    assert result.slice.mni_affine[2, 3] == 40


def test_too_few_people_for_the_rate(make_screener, make_calibration):
    message = "18 healthy people allow a false positive rate of 0.0526 at best"
    with pytest.raises(ConfigError, match=message):
        make_screener(make_calibration([0.001 * n for n in range(18)]))
    make_screener(make_calibration([0.001 * n for n in range(19)]))
    make_screener(make_calibration([0.001 * n for n in range(9)]), rate=0.1)
