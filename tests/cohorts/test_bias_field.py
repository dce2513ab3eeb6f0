"""Bias field correction: a field that was put in is taken out, and the brain keeps its mean."""

import sys

import numpy as np
import pytest

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.bias_field import correct_bias_field, import_itk
from pathology_screen.cohorts.simulation import simulate
from pathology_screen.errors import ConfigError


@pytest.fixture(scope="module")
def phantom():
    volume = simulate(load_template(), (7, 1))
    return np.float32(volume.image * volume.brain), volume.affine


@pytest.fixture(scope="module")
def shaded(phantom):
    """The phantom, 2.2 times as bright at the front as at the back."""
    image, _ = phantom
    return image * np.exp(np.linspace(-0.4, 0.4, image.shape[1], dtype=np.float32))[:, None]


@pytest.fixture(scope="module")
def corrected(phantom, shaded):
    image, affine = phantom
    return correct_bias_field(shaded, affine, image > 0)


def spread(values):
    return values.std() / values.mean()


def test_field_is_taken_out(phantom, shaded, corrected):
    image, _ = phantom
    white = image > np.percentile(image[image > 0], 60)
    before, after = (spread(volume[white] / image[white]) for volume in (shaded, corrected))
    assert before > 0.12 and after < 0.04


def test_brain_keeps_its_mean_and_the_background_its_zeros(phantom, shaded, corrected):
    brain = phantom[0] > 0
    assert corrected.dtype == np.float32 and np.all(corrected[~brain] == 0)
    assert corrected[brain].mean() == pytest.approx(shaded[brain].mean(), rel=1e-4)


def test_same_volume_gives_the_same_result(phantom, shaded, corrected):
    image, affine = phantom
    assert np.array_equal(correct_bias_field(shaded, affine, image > 0), corrected)


def test_order_of_the_axes_hardly_matters(phantom, shaded, corrected):
    image, affine = phantom
    turned = correct_bias_field(
        shaded.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]], image.transpose(2, 0, 1) > 0
    )
    assert spread(turned.transpose(1, 2, 0)[image > 0] / corrected[image > 0]) < 0.02


def test_skull_gets_the_field_of_the_brain_beside_it(phantom, shaded):
    """A plate of the intensity of the front is corrected as the front is."""
    image, affine = phantom
    brain = image > 0
    front = np.flatnonzero(brain.any(axis=(0, 2)))[-1]
    column, level = np.argwhere(brain[:, front])[0]
    volume = shaded.copy()
    volume[column, front + 1 : front + 6] = 500
    corrected = correct_bias_field(volume, affine, brain)
    assert 0.6 < corrected[column, front + 5, level] / 500 < 0.9


def test_missing_itk_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "itk", None)
    with pytest.raises(ConfigError, match=r"pip install pathology-screen\[ixi\]"):
        import_itk()
