"""What is suspicious, what is not judged, and the regions above a threshold, in millimetres."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathology_screen.errors import ConfigError
from pathology_screen.screening.judge import SMALLEST_MM2, Judge, find_regions

AFFINE = np.array([[0, -2.0, 0, 10], [-1.5, 0, 0, -20], [0.0, 0, 1, 5], [0, 0, 0, 1]])
"""(row, column, 0, 1) -> mm: rows to posterior, columns to the patient's left."""
MNI = np.array([[0, -2.0, 0, 20], [-2.0, 0, 0, 30], [0, 0, 1, 23], [0, 0, 0, 1]])


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


def test_too_few_people_for_the_rate_give_maps_and_no_outcome(
    slices, make_screener, make_calibration
):
    message = "18 healthy people allow a false positive rate of 0.0526 at best"
    with pytest.raises(ConfigError, match=message):
        make_screener(make_calibration([0.001 * n for n in range(18)]))
    make_screener(make_calibration([0.001 * n for n in range(19)]))
    few = make_calibration([0.001 * n for n in range(9)])
    screener = make_screener(few, rate=0.1)
    screener.judge = Judge(screener.predictor, few)  # as of a bundle
    result = screener(slices[1])
    assert (result.outcome, result.code) == ("not_assessable", "not_calibrated")
    assert "9 healthy people; accepted: 19 or more for a false positive rate of" in result.reason
    assert result.score is result.image_threshold is None
    assert result.slice.score > 0 and result.map_volume.any()


@pytest.fixture
def anomaly_map():
    """Two boxes: 3 x 4 pixels with a peak of 0.9, and 5 x 4 with one of 0.6; and a lone pixel."""
    values = np.zeros((20, 20), np.float32)
    values[2:5, 3:7] = 0.5
    values[3, 4] = 0.9
    values[10:15, 10:14] = 0.4
    values[12, 12] = 0.6
    values[18, 18] = 2.0
    return values


def test_sizes_and_places(anomaly_map):
    (first, second), labels = find_regions(anomaly_map, AFFINE, 0.3, MNI)
    assert (first.label, first.area_mm2) == (1, pytest.approx(12 * 3))
    assert first.peak == pytest.approx(0.9)
    assert first.peak_mm == pytest.approx((10 - 2 * 4, -20 - 1.5 * 3, 5))
    assert first.peak_mni_mm == pytest.approx((20 - 2 * 4, 30 - 2 * 3, 23))
    assert first.centroid_mm == pytest.approx((10 - 2 * 4.5, -20 - 1.5 * 3, 5))
    assert first.centroid_mni_mm == pytest.approx((20 - 2 * 4.5, 30 - 2 * 3, 23))
    assert first.mean == pytest.approx((11 * 0.5 + 0.9) / 12)
    assert (second.label, second.area_mm2) == (2, pytest.approx(60))
    assert labels.dtype == np.uint16 and [(labels == n).sum() for n in (1, 2)] == [12, 20]
    assert labels[18, 18] == 0  # 3 mm2 are too small

    regions, _ = find_regions(anomaly_map, AFFINE, 0.3)  # a slice that was not registered
    nowhere = {(one.peak_mni_mm, one.centroid_mni_mm, one.side, one.tissue) for one in regions}
    assert nowhere == {(None, None, None, None)}
    skewed = AFFINE.copy()
    skewed[0, 0] = 1.0  # a row moves along the columns too: pixels are parallelograms
    assert find_regions(anomaly_map, skewed, 0.3)[0][0].area_mm2 == pytest.approx(12 * 3)
    regions, labels = find_regions(anomaly_map, AFFINE, 5.0)
    assert regions == () and not labels.any()


def test_side_and_tissue_are_those_of_the_place_in_mni_space(anomaly_map):
    """In RAS+ the patient's left is negative, whichever way the scan's own axes run."""
    there = MNI.copy()
    for x, side in ((-30, "left"), (-4, "midline"), (0, "midline"), (4, "midline"), (30, "right")):
        there[0, 3] = 8 + x
        assert find_regions(anomaly_map, AFFINE, 0.3, there)[0][0].side == side
    for (x, y, z), tissue in (  # of a box of 6 x 8 mm
        ((28, -30, 30), "white"),  # centrum semiovale
        ((-10, -14, 8), "grey"),  # thalamus
        ((-8, -4, 21), "other"),  # lateral ventricle
        ((85, 0, 23), "other"),  # scalp
    ):
        there[:3, 3] = x + 9, y + 6, z
        assert find_regions(anomaly_map, AFFINE, 0.3, there)[0][0].tissue == tissue


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.95))
def test_regions_cover_what_exceeds_the_threshold(seed, threshold):
    values = np.random.default_rng(seed).random((9, 12))
    affine = np.diag([4.0, 4.0, 4.0, 1.0])  # a pixel is larger than the smallest region
    assert SMALLEST_MM2 < 16
    regions, labels = find_regions(values, affine, threshold)
    assert np.array_equal(labels > 0, values > threshold)
    assert [region.label for region in regions] == list(range(1, labels.max() + 1))
    peaks = [region.peak for region in regions]
    assert peaks == sorted(peaks, reverse=True)
    for region in regions:
        inside = labels == region.label
        assert region.peak == values[inside].max()
        assert region.mean == pytest.approx(values[inside].mean())
        assert region.area_mm2 == pytest.approx(16 * inside.sum())
