"""Regions above a threshold, in millimetres."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathology_screen.screening.regions import SMALLEST_MM2, find_regions

AFFINE = np.array([[0, -2.0, 0, 10], [-1.5, 0, 0, -20], [0.0, 0, 1, 5], [0, 0, 0, 1]])
"""(row, column, 0, 1) -> mm: rows to posterior, columns to the patient's left."""
MNI = np.array([[0, -2.0, 0, 20], [-2.0, 0, 0, 30], [0, 0, 1, 23], [0, 0, 0, 1]])


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


@pytest.mark.parametrize(
    ("x", "side"), [(-30, "left"), (-4, "midline"), (0, "midline"), (4, "midline"), (30, "right")]
)
def test_the_side_is_that_of_the_peak_in_mni_space(anomaly_map, x, side):
    """In RAS+ the patient's left is negative, whichever way the scan's own axes run."""
    there = MNI + np.array([[0, 0, 0, x - 12]] + 3 * [[0] * 4])
    assert find_regions(anomaly_map, AFFINE, 0.3, there)[0][0].side == side


def test_a_slice_that_was_not_registered_has_no_place_in_mni_space(anomaly_map):
    regions, _ = find_regions(anomaly_map, AFFINE, 0.3)
    nowhere = {(one.peak_mni_mm, one.centroid_mni_mm, one.side, one.tissue) for one in regions}
    assert nowhere == {(None, None, None, None)}


@pytest.mark.parametrize(
    ("place", "tissue"),
    [
        ((28, -30, 30), "white"),
        ((-10, -14, 8), "grey"),
        ((-8, -4, 21), "other"),
        ((85, 0), "other"),
    ],
)
def test_the_tissue_is_that_of_the_template(anomaly_map, place, tissue):
    """Centrum semiovale, thalamus, lateral ventricle, scalp; the box is 6 x 8 mm."""
    x, y, z = (*place, 23)[:3]
    there = np.array([[0, -2.0, 0, x + 9], [-2.0, 0, 0, y + 6], [0, 0, 1, z], [0, 0, 0, 1]])
    assert find_regions(anomaly_map, AFFINE, 0.3, there)[0][0].tissue == tissue


def test_skewed_pixels_have_the_area_of_their_parallelogram(anomaly_map):
    skewed = AFFINE.copy()
    skewed[0, 0] = 1.0  # a row moves along the columns too
    assert find_regions(anomaly_map, skewed, 0.3)[0][0].area_mm2 == pytest.approx(12 * 3)


def test_nothing_above_the_threshold(anomaly_map):
    regions, labels = find_regions(anomaly_map, AFFINE, 5.0)
    assert regions == () and not labels.any()


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
