"""Adaptive histogram equalisation of batches."""

import numpy as np
import pytest
import torch
from skimage.exposure import equalize_adapthist

from pathology_screen.anomaly import equalize
from pathology_screen.errors import ConfigError


def test_each_image_equals_scikit_image(images):
    expected = np.stack([equalize_adapthist(image) for image in images[:, 0].numpy()])
    equalized = equalize(images)
    assert equalized.shape == images.shape
    assert equalized.dtype == torch.float32
    np.testing.assert_array_equal(equalized[:, 0].numpy(), expected)


def test_images_do_not_influence_each_other(images):
    torch.testing.assert_close(equalize(images)[1:2], equalize(images[1:2]), rtol=0, atol=0)


def test_values_are_clamped_first(images):
    torch.testing.assert_close(
        equalize(images * 2 - 0.2), equalize((images * 2 - 0.2).clamp(0, 1)), rtol=0, atol=0
    )


def test_result_spans_zero_to_one_whatever_the_range(images):
    faint = equalize(0.3 + 0.01 * images)
    assert faint.amin().item() == 0
    assert faint.amax().item() == 1


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_image_stays_as_it_is(value):
    constant = torch.full((2, 1, 32, 32), value)
    torch.testing.assert_close(equalize(constant), constant, rtol=0, atol=0)


def test_range_below_one_16_bit_level_counts_as_constant():
    almost = 0.5 + torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 1e-5
    torch.testing.assert_close(equalize(almost), almost, rtol=0, atol=0)


def test_smallest_image():
    generator = torch.Generator().manual_seed(0)
    equalized = equalize(torch.rand(1, 1, 16, 16, generator=generator))
    assert 0.2 < equalized.std().item() < 0.4
    with pytest.raises(ConfigError, match="16 px"):
        equalize(torch.rand(1, 1, 15, 64, generator=generator))


def test_input_is_left_alone(images):
    before = images.clone()
    equalize(images)
    torch.testing.assert_close(images, before, rtol=0, atol=0)
