"""Synthetic anomalies keep the ranges of Appendix C.1."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from skimage.measure import regionprops

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.synthetic import add_coarse_noise, add_ellipses, coarse_noise, copy_paste

seeds = st.integers(0, 2**32 - 1)


def rng(seed=0):
    return np.random.default_rng(seed)


def brain(size: int = 128) -> np.ndarray:
    """A disc of tissue (0.2-0.8, no two pixels alike) on black, (size, size) float32."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    values = rng().uniform(0.2, 0.8, (size, size))
    return np.where(rows**2 + columns**2 < 0.45**2, values, 0).astype(np.float32)


@pytest.mark.parametrize("anomaly", [add_ellipses, copy_paste])
class TestEveryAnomaly:
    def test_changes_its_mask_alone_as_the_generator_decides(self, anomaly):
        image = brain()
        anomalous, mask = anomaly(image, rng(1))
        assert anomalous.shape == mask.shape == image.shape
        assert (anomalous.dtype, mask.dtype) == (np.float32, bool)
        np.testing.assert_array_equal(anomalous[~mask], image[~mask])
        assert (anomalous[mask] != image[mask]).mean() > 0.5
        np.testing.assert_array_equal(image, brain())
        np.testing.assert_array_equal(anomalous, anomaly(image, rng(1))[0])
        assert (anomalous != anomaly(image, rng(2))[0]).any()

    def test_area_scales_with_the_image(self, anomaly):
        def share(n):
            return np.mean([anomaly(brain(n), rng(seed))[1] for seed in range(40)])

        assert share(64) == pytest.approx(share(128), rel=0.1)
        assert share(256) == pytest.approx(share(128), rel=0.1)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_ellipses_keep_their_ranges(seed):
    image = brain()
    anomalous, mask = add_ellipses(image, rng(seed), percentiles_of="tissue")
    changed = np.unique(anomalous[mask & (anomalous != image)])
    assert 1 <= len(changed) <= 3
    # of values uniform over 0.2-0.8, some of them painted over
    bands = [(0.2, 0.27), (0.35, 0.65), (0.73, 0.8)]
    assert all(any(low <= value <= high for low, high in bands) for value in changed)
    places = np.argwhere(mask)
    assert places.min() >= 32 - 12 - 1 and places.max() <= 96 + 12 + 1
    regions, n = label(mask)
    for region in regionprops(regions) if n == 3 else []:
        semi_axes = region.axis_major_length / 2, region.axis_minor_length / 2
        assert 7.7 <= semi_axes[1] <= semi_axes[0] <= 12.3


def test_percentiles_of_the_image_count_the_background():
    """On an image that is mostly black the first percentiles are 0, as in the released code."""
    image = brain()
    image[:60] = 0
    of_image, mask = add_ellipses(image, rng())
    of_tissue, _ = add_ellipses(image, rng(), percentiles_of="tissue")
    assert (of_image[mask] == 0).any() and (of_tissue[mask] >= 0.2).all()
    with pytest.raises(ConfigError, match="bones"):
        add_ellipses(image, rng(), percentiles_of="bones")
    with pytest.raises(InputError, match="no_tissue"):
        add_ellipses(0 * image, rng(), percentiles_of="tissue")


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_rectangles_keep_their_ranges(seed):
    image = rng().random((128, 128)).astype(np.float32)
    anomalous, mask = copy_paste(image, rng(seed))
    places = np.argwhere(mask)
    height, width = np.ptp(places, axis=0) + 1
    assert mask.sum() == height * width
    assert min(height, width) >= 25 and max(height, width) < 50 and places.min() >= 25
    patch = anomalous[mask].reshape(height, width)
    where = image[25 : 129 - height, 25 : 129 - width] == patch[0, 0]  # no two pixels are alike
    ((row, column),) = np.argwhere(where) + 25
    np.testing.assert_array_equal(patch, image[row : row + height, column : column + width])


class TestCoarseNoise:
    def test_is_a_rolled_bilinear_enlargement_of_a_coarse_grid(self):
        """Every 3rd pixel of a 10 px image lies on a 4 x 4 grid with aligned corners; between,
        values are linear."""
        noise = coarse_noise(2, torch.Generator().manual_seed(0), 10, deviation=0.2, resolution=4)
        grid = 0.2 * torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        rolled = [noise.roll((-row, -column), (2, 3)) for row in range(10) for column in range(10)]
        fits = [one for one in rolled if torch.allclose(one[..., ::3, ::3], grid, atol=1e-6)]
        assert len(fits) == 1  # one shift for the whole batch
        between = (2 * grid[..., :-1, :] + grid[..., 1:, :]) / 3
        torch.testing.assert_close(fits[0][..., 1::3, ::3], between, rtol=1e-4, atol=1e-6)

    def test_has_the_paper_s_deviation_and_resolution(self):
        """Bilinear interpolation keeps 2/3 of the variance an axis between its nodes, and nearly
        that over all pixels; values 128/15 px apart (one cell) are correlated, three cells apart
        they are not."""
        noise = coarse_noise(400, torch.Generator().manual_seed(1), 128)
        assert noise.shape == (400, 1, 128, 128) and noise.dtype == torch.float32
        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        assert noise.std().item() == pytest.approx(0.2 * 2 / 3, rel=0.03)
        near, far = ((noise * noise.roll(shift, 3)).mean().item() / 0.04 for shift in (4, 26))
        assert near > 0.25 and abs(far) < 0.05

    def test_each_call_draws_a_shift(self):
        generator = torch.Generator().manual_seed(0)
        noises = [coarse_noise(1, generator, 64) for _ in range(8)]
        seams = {noise.diff(dim=3).abs().amax((0, 1, 2)).argmax().item() for noise in noises}
        assert len(seams) > 4  # the wrapped border is the one jump

    def test_is_added_to_the_foreground_alone(self):
        image = torch.tensor([0.0, 0.01, 0.011, 1.0]).reshape(1, 1, 2, 2)
        noisy = add_coarse_noise(image, torch.tensor([0.5, 0.5, -0.5, 0.5]).reshape(1, 1, 2, 2))
        expected = torch.tensor([0.0, 0.01, -0.489, 1.5])  # not clipped
        torch.testing.assert_close(noisy.flatten(), expected)
