"""The brain of a scan as a mask, and tissue as the scale of intensity."""

import numpy as np
import pytest
import torch
from head_builder import ellipsoids
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.space import tissue_mask
from pathology_screen.transforms import ExtractBraind, ScaleByTissuePercentiled


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


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_slice_without_tissue_is_refused(value):
    with pytest.raises(InputError, match="no_tissue"):
        ScaleByTissuePercentiled("image")({"image": MetaTensor(np.full((1, 8, 8), value))})


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


AFFINE = np.array([[0, 2.0, 0, -90], [-2.0, 0, 0, 110], [0, 0, 2.0, -70], [0, 0, 0, 1]])


def test_the_brain_is_a_mask_of_its_own():
    brain = ellipsoids((110, 90, 100), AFFINE, brain_only=True)[None]
    scan = MetaTensor(brain, affine=AFFINE)
    out = ExtractBraind("image", mask_key="mask")({"image": scan})
    assert torch.equal(out["image"], scan) and out["image"].meta["brain_extracted"]
    assert np.array_equal(out["mask"], brain > 0) and out["mask"].dtype == torch.uint8
    assert np.array_equal(out["mask"].affine, AFFINE)


def test_several_scans_are_refused():
    with pytest.raises(ConfigError, match="one key"):
        ExtractBraind(("image", "label"))
