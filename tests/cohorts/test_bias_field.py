"""Bias field correction: a field that was put in is taken out, and the brain keeps its mean."""

import sys

import numpy as np
import pytest

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.bias_field import correct_bias_field, import_itk
from pathology_screen.cohorts.simulation import simulate
from pathology_screen.errors import ConfigError


@pytest.fixture(scope="module")
def shaded():
    """A phantom brain; the same 2.2 times as bright at the front as at the back; its affine; and
    what correction makes of it."""
    volume = simulate(load_template(), (7, 1))
    image = np.float32(volume.image * volume.brain)
    shaded = image * np.exp(np.linspace(-0.4, 0.4, image.shape[1], dtype=np.float32))[:, None]
    return image, shaded, volume.affine, correct_bias_field(shaded, volume.affine, image > 0)


def spread(values):
    return values.std() / values.mean()


def test_field_is_taken_out_and_the_brain_keeps_its_mean(shaded):
    image, before, affine, after = shaded
    white, brain = image > np.percentile(image[image > 0], 60), image > 0
    assert (
        spread(before[white] / image[white]) > 0.12 and spread(after[white] / image[white]) < 0.04
    )
    assert after.dtype == np.float32 and np.all(after[~brain] == 0)
    assert after[brain].mean() == pytest.approx(before[brain].mean(), rel=1e-4)
    assert np.array_equal(correct_bias_field(before, affine, brain), after)


def test_order_of_the_axes_hardly_matters(shaded):
    image, before, affine, after = shaded
    turned, brain = (volume.transpose(2, 0, 1) for volume in (before, image > 0))
    found = correct_bias_field(turned, affine[:, [2, 0, 1, 3]], brain).transpose(1, 2, 0)
    assert spread(found[image > 0] / after[image > 0]) < 0.02


def test_skull_gets_the_field_of_the_brain_beside_it(shaded):
    """A plate of the intensity of the front is corrected as the front is."""
    image, before, affine, _ = shaded
    front = np.flatnonzero((image > 0).any(axis=(0, 2)))[-1]
    column, level = np.argwhere(image[:, front] > 0)[0]
    volume = before.copy()
    volume[column, front + 1 : front + 6] = 500
    corrected = correct_bias_field(volume, affine, image > 0)
    assert 0.6 < corrected[column, front + 5, level] / 500 < 0.9


def test_missing_itk_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "itk", None)
    with pytest.raises(ConfigError, match=r"pip install pathology-screen\[ixi\]"):
        import_itk()
