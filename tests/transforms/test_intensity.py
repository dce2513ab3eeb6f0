"""Intensities: the scale of tissue, black air, and the contrast of the brain."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from pathology_screen.errors import InputError
from pathology_screen.space import brain_in_plane, tissue_mask
from pathology_screen.transforms import (
    BlackenBackgroundd,
    ScaleByTissuePercentiled,
    StandardContrastd,
)


def slice_with_noise(background, unit=1.0, seed=0):
    """A disc of tissue (0.3 to 1) on air that holds noise of 1.5 % of its brightest intensity."""
    rng = np.random.default_rng(seed)
    side = 64 + 2 * background
    disc = np.hypot(*(np.indices((side, side)) - (side - 1) / 2)) < 28
    tissue, air = rng.uniform(0.3, 1, disc.shape), np.abs(rng.normal(0, 0.015, disc.shape))
    return (unit * np.where(disc, tissue, air)).astype(np.float32), disc


@settings(deadline=None)
@given(st.integers(0, 100), st.floats(1e-3, 1e5))
def test_the_scale_is_the_percentile_of_tissue_on_any_background_in_any_unit(background, unit):
    image, disc = slice_with_noise(background, unit)
    assert np.array_equal(tissue_mask(image), disc)
    scaled = ScaleByTissuePercentiled("image")({"image": MetaTensor(image[None])})["image"]
    expected = np.clip(image / np.percentile(image[disc], 98), 0, 1)
    assert scaled.dtype == torch.float32
    assert np.allclose(scaled[0], expected, atol=1e-6)
    assert np.mean(np.asarray(scaled[0])[disc] == 1) == pytest.approx(0.02, abs=0.002)


def test_the_percentile_and_the_meta_data_are_kept():
    image, disc = slice_with_noise(10)
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0]))
    loaded = MetaTensor(image[None], affine=affine, meta={"level": 5})
    scaled = ScaleByTissuePercentiled("image", percentile=50)({"image": loaded})["image"]
    assert np.mean(np.asarray(scaled[0])[disc] == 1) == pytest.approx(0.5, abs=0.01)
    assert scaled.meta["level"] == 5
    assert torch.equal(torch.as_tensor(scaled.affine), loaded.affine)


def test_the_percentile_is_of_the_brain_where_there_is_a_mask_of_it():
    image, disc = slice_with_noise(10)
    brain = disc & (image < 0.5)
    item = {"image": MetaTensor(image[None]), "brain": MetaTensor(brain[None].astype(np.float32))}
    scaled = ScaleByTissuePercentiled("image", percentile=50, mask_key="brain")(item)["image"]
    expected = np.clip(image / np.percentile(image[brain], 50), 0, 1)
    assert np.allclose(scaled[0], expected, atol=1e-6)
    del item["brain"]
    plain = ScaleByTissuePercentiled("image", percentile=50, mask_key="brain")(item)["image"]
    assert np.allclose(plain[0], np.clip(image / np.percentile(image[disc], 50), 0, 1), atol=1e-6)


def noisy_head():
    """A disc of 0.6 with a dark cleft at its edge, on noisy air with a ghost."""
    rows, columns = np.mgrid[:120, :100] - np.array([60, 50])[:, None, None]
    disc = np.hypot(rows, columns) < 40
    cleft = disc & (np.abs(rows) < 4) & (columns > 20)
    image = np.abs(np.random.default_rng(0).normal(0, 0.03, disc.shape))
    image[disc], image[cleft], image[2:6, 2:6] = 0.6, 0.01, 0.9
    return image.astype(np.float32), disc


def test_air_becomes_black_and_the_head_keeps_every_value():
    image, disc = noisy_head()
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0]))
    made = BlackenBackgroundd("image", 0.12)({"image": MetaTensor(image[None], affine=affine)})
    black = np.asarray(made["image"][0])
    assert np.array_equal(black[disc], image[disc])  # the cleft too
    assert (black[np.hypot(*(np.indices(disc.shape) - [[[60]], [[50]]])) > 45] == 0).all()
    assert torch.equal(torch.as_tensor(made["image"].affine), affine.double())


def test_nothing_changes_without_a_level_or_without_a_head():
    image, _ = noisy_head()
    for level, values in ((None, image), (0.12, image * 0.01)):
        item = {"image": MetaTensor(values[None])}
        assert torch.equal(BlackenBackgroundd("image", level)(item)["image"], item["image"])


def drawn_slice(shape=(233, 197)):
    return np.random.default_rng(0).uniform(0.2, 1, (1, *shape)).astype(np.float32)


@settings(deadline=None)
@given(st.floats(0.4, 2.5), st.sampled_from([(233, 197), (128, 128)]))
def test_scanners_that_differ_by_a_power_become_equal(power, shape):
    image, standard = drawn_slice(shape), StandardContrastd("image", 0.79)
    first, second = (standard({"image": MetaTensor(x)})["image"] for x in (image, image**power))
    assert np.allclose(first, second, atol=1e-4)
    assert np.median(np.asarray(first[0])[brain_in_plane(shape)]) == pytest.approx(0.79, abs=1e-4)


def test_no_median_changes_nothing():
    item = {"image": MetaTensor(drawn_slice())}
    assert np.array_equal(StandardContrastd("image")(item)["image"], item["image"])


@pytest.mark.parametrize(
    ("transform", "value"),
    [
        *((ScaleByTissuePercentiled("image"), value) for value in (0.0, -3.0)),
        *((StandardContrastd("image", 0.79), value) for value in (0.0, 1.0)),
    ],
)
def test_a_slice_without_tissue_or_contrast_is_refused(transform, value):
    with pytest.raises(InputError, match="no_tissue"):
        transform({"image": MetaTensor(np.full((1, 233, 197), value))})
