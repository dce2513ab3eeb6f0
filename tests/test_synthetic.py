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


def brain(size: int = 128) -> np.ndarray:
    """A disc of tissue (0.2-0.8, no two pixels alike) on black, (size, size) float32."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    values = np.random.default_rng(0).uniform(0.2, 0.8, (size, size))
    return np.where(rows**2 + columns**2 < 0.45**2, values, 0).astype(np.float32)


@pytest.mark.parametrize("anomaly", [add_ellipses, copy_paste])
class TestEveryAnomaly:
    def test_changes_nothing_outside_its_mask(self, anomaly):
        image = brain()
        anomalous, mask = anomaly(image, np.random.default_rng(1))
        assert anomalous.shape == mask.shape == image.shape
        assert (anomalous.dtype, mask.dtype) == (np.float32, bool)
        np.testing.assert_array_equal(anomalous[~mask], image[~mask])
        assert (anomalous[mask] != image[mask]).mean() > 0.5
        np.testing.assert_array_equal(image, brain())

    def test_the_generator_decides(self, anomaly):
        made = [anomaly(brain(), np.random.default_rng(seed))[0] for seed in (1, 1, 2)]
        first, again, other = made
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    @pytest.mark.parametrize("size", [64, 256])
    def test_area_scales_with_the_image(self, anomaly, size):
        def share(n):
            masks = [anomaly(brain(n), np.random.default_rng(seed))[1] for seed in range(40)]
            return np.mean(masks)

        assert share(size) == pytest.approx(share(128), rel=0.1)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_ellipses_keep_their_ranges(seed):
    image = brain()
    anomalous, mask = add_ellipses(image, np.random.default_rng(seed), percentiles_of="tissue")
    changed = np.unique(anomalous[mask & (anomalous != image)])
    assert 1 <= len(changed) <= 3
    # of values uniform over 0.2-0.8, some of them painted over
    bands = [(0.2, 0.27), (0.35, 0.65), (0.73, 0.8)]
    assert all(any(low <= value <= high for low, high in bands) for value in changed)

    rows, columns = np.nonzero(mask)
    assert min(rows.min(), columns.min()) >= 32 - 12 - 1
    assert max(rows.max(), columns.max()) <= 96 + 12 + 1

    regions, n = label(mask)
    if n == 3:
        for region in regionprops(regions):
            semi_axes = region.axis_major_length / 2, region.axis_minor_length / 2
            assert 7.7 <= semi_axes[1] <= semi_axes[0] <= 12.3


def test_percentiles_of_the_image_count_the_background():
    """On an image that is mostly black the first percentiles are 0, as in the released code."""
    image = brain()
    image[:60] = 0
    of_image, mask = add_ellipses(image, np.random.default_rng(0))
    of_tissue, _ = add_ellipses(image, np.random.default_rng(0), percentiles_of="tissue")
    assert (of_image[mask] == 0).any()
    assert (of_tissue[mask] >= 0.2).all()


def test_ellipses_refuse_what_they_cannot_do():
    with pytest.raises(ConfigError, match="bones"):
        add_ellipses(brain(), np.random.default_rng(0), percentiles_of="bones")
    with pytest.raises(InputError) as refusal:
        add_ellipses(np.zeros((64, 64)), np.random.default_rng(0), percentiles_of="tissue")
    assert refusal.value.code == "no_tissue"


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_rectangles_keep_their_ranges(seed):
    image = np.random.default_rng(0).random((128, 128)).astype(np.float32)
    anomalous, mask = copy_paste(image, np.random.default_rng(seed))
    rows, columns = np.nonzero(mask)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert mask.sum() == height * width
    assert min(height, width) >= 25 and max(height, width) < 50
    assert min(rows.min(), columns.min()) >= 25
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
        shifts = [(row, column) for row in range(10) for column in range(10)]
        rolled = {shift: noise.roll([-s for s in shift], (2, 3)) for shift in shifts}
        fits = [s for s in shifts if torch.allclose(rolled[s][..., ::3, ::3], grid, atol=1e-6)]
        assert len(fits) == 1  # one shift for the whole batch
        between = (2 * grid[..., :-1, :] + grid[..., 1:, :]) / 3
        found = rolled[fits[0]][..., 1::3, ::3]
        torch.testing.assert_close(found, between, rtol=1e-4, atol=1e-6)

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
        seams = {
            coarse_noise(1, generator, 64).diff(dim=3).abs().amax((0, 1, 2)).argmax().item()
            for _ in range(8)
        }
        assert len(seams) > 4  # the wrapped border is the one jump

    def test_the_generator_decides(self):
        draws = [coarse_noise(3, torch.Generator().manual_seed(seed), 32) for seed in (1, 1, 2)]
        assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])

    def test_is_added_to_the_foreground_alone(self):
        image = torch.tensor([0.0, 0.01, 0.011, 1.0]).reshape(1, 1, 2, 2)
        noisy = add_coarse_noise(image, torch.tensor([0.5, 0.5, -0.5, 0.5]).reshape(1, 1, 2, 2))
        expected = torch.tensor([0.0, 0.01, -0.489, 1.5])  # not clipped
        torch.testing.assert_close(noisy.flatten(), expected)
