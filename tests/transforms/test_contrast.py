"""One contrast for the slices of all scanners."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from pathology_screen.errors import InputError
from pathology_screen.space import brain_in_plane
from pathology_screen.transforms import StandardContrastd


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


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_brain_without_contrast_is_refused(value):
    with pytest.raises(InputError) as refusal:
        StandardContrastd("image", 0.79)({"image": MetaTensor(np.full((1, 233, 197), value))})
    assert refusal.value.code == "no_tissue"
