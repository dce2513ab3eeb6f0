"""Regions above a threshold, in millimetres."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.screening.regions import find_regions

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 1.5, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])


@pytest.fixture
def volume():
    """Two boxes: 3 x 4 x 2 voxels with a peak of 0.9, and 5 x 4 x 1 with one of 0.6; and a lone voxel."""
    values = np.zeros((20, 20, 8), np.float32)
    values[2:5, 3:7, 1:3] = 0.5
    values[3, 4, 2] = 0.9
    values[10:15, 10:14, 5] = 0.4
    values[12, 12, 5] = 0.6
    values[18, 18, 7] = 2.0
    return values


def test_sizes_and_places(volume):
    (first, second), labels = find_regions(volume, AFFINE, 0.3, volumes=True)
    assert (first.label, first.voxels, first.levels) == (1, 24, (1, 2))
    assert first.area_mm2 == pytest.approx(12 * 3) and first.volume_ml == pytest.approx(24 * 9 / 1000)
    assert first.peak == pytest.approx(0.9) and first.peak_mm == pytest.approx((10 - 2 * 3, -20 + 1.5 * 4, 5 + 3 * 2))
    assert first.centroid_mm == pytest.approx((10 - 2 * 3, -20 + 1.5 * 4.5, 5 + 3 * 1.5))
    assert first.mean == pytest.approx((23 * 0.5 + 0.9) / 24)
    assert (second.voxels, second.levels, second.area_mm2) == (20, (5, 5), pytest.approx(60))
    assert labels.dtype == np.uint16 and [(labels == n).sum() for n in (1, 2)] == [24, 20]
    assert labels[18, 18, 7] == 0  # 3 mm2 are too small


def test_levels_count_from_inferior_whichever_way_the_axis_runs(volume):
    flipped = AFFINE.copy()
    flipped[:3, 2] *= -1
    flipped[:3, 3] -= 7 * flipped[:3, 2]
    (first, _), _ = find_regions(volume[..., ::-1], flipped, 0.3, volumes=True)
    assert first.levels == (1, 2)
    assert first.peak_mm == pytest.approx((4, -14, 11))


def test_one_slice_has_no_volume(volume):
    regions, _ = find_regions(volume, AFFINE, 0.3, volumes=False)
    assert all(region.volume_ml is None for region in regions)


def test_nothing_above_the_threshold(volume):
    regions, labels = find_regions(volume, AFFINE, 5.0, volumes=True)
    assert regions == () and not labels.any()


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.95))
def test_regions_cover_what_exceeds_the_threshold(seed, threshold):
    values = np.random.default_rng(seed).random((6, 7, 5))
    affine = np.diag([4.0, 4.0, 4.0, 1.0])  # a voxel is larger than the smallest region
    regions, labels = find_regions(values, affine, threshold, volumes=True)
    assert np.array_equal(labels > 0, values > threshold)
    assert sum(region.voxels for region in regions) == (values > threshold).sum()
    assert [region.peak for region in regions] == sorted((region.peak for region in regions), reverse=True)
