"""White matter against cortex: contrast and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantom_contrasts import CONTRASTS, phantom
from scipy import ndimage as ndi

from pathology_screen.cohorts.lesions import KINDS
from pathology_screen.errors import InputError
from pathology_screen.screening.contrast import full_slices, white_to_cortex


@pytest.fixture(scope="module")
def healthy():
    return phantom()


@pytest.mark.parametrize("kind", KINDS)
def test_lesions_leave_a_t1w_brain_t1w(kind):
    assert white_to_cortex(*phantom(kind)) > 1.1


def test_of_contrasts_the_weakest_t1w_lies_above_one_and_all_others_below():
    assert white_to_cortex(*phantom(intensity=(0.45, 0.9))) > 1.01
    assert all(white_to_cortex(*phantom(intensity=other)) < 1 for other in CONTRASTS.values())


def test_inverted_brain_lies_below_one(healthy):
    volume, affine = healthy
    assert white_to_cortex((1.02 * volume.max() - volume) * (volume > 0), affine) < 0.95


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-3, 1e3), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_neither_scale_nor_storage_order_matters(healthy, scale, order, flips):
    volume, affine = healthy
    turned, matrix = volume.transpose(order), affine[:, [*order, 3]].copy()
    for axis in np.flatnonzero(flips):
        matrix[:3, 3] += matrix[:3, axis] * (turned.shape[axis] - 1)
        matrix[:3, axis] *= -1
    turned = np.flip(turned, np.flatnonzero(flips)) * np.float32(scale)
    expected = white_to_cortex(volume, affine)
    assert white_to_cortex(turned, matrix) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("sign", [-0.3, 0.3])
def test_shading_by_the_coils_hardly_matters(healthy, sign):
    volume, affine = healthy
    x, y = (np.linspace(-1, 1, count) for count in volume.shape[:2])
    shading = np.exp(sign * (x[:, None] ** 2 + y**2 + 0.5 * y))[..., None].astype(np.float32)
    expected = white_to_cortex(volume, affine)
    assert white_to_cortex(volume * shading, affine) == pytest.approx(expected, abs=0.06)


def test_noise_and_larger_pixels_leave_it_above_one(healthy):
    volume, affine = healthy
    deviation = 0.1 * np.percentile(volume[volume > 0], 90)
    noise = np.random.default_rng(0).normal(0, deviation, volume.shape)
    assert white_to_cortex(np.abs(volume + noise) * (volume > 0), affine) > 1.03
    coarser = affine.copy()
    coarser[:3, :2] *= 2
    assert white_to_cortex(ndi.zoom(volume, (0.5, 0.5, 1), order=1), coarser) > 1.03


def test_a_brain_too_small_for_its_depths_has_no_ratio():
    volume = np.zeros((30, 30, 4), np.float32)
    volume[10:18, 10:18] = 100
    assert np.isnan(white_to_cortex(volume, np.eye(4)))


def test_slices_are_cut_to_the_brain_and_at_most_twelve(healthy):
    volume, affine = healthy
    slices = list(full_slices(np.repeat(volume, 6, axis=2), affine))
    assert len(slices) == 12
    for image, outline in slices:
        assert image.shape == outline.shape and outline[0].any() and outline[:, -1].any()
    with pytest.raises(InputError, match="no_tissue"):
        list(full_slices(np.zeros((4, 4, 4)), affine))
