"""The augmentation of training batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.transforms import RandomAffineBatch

IDENTITY = {"angle": 0.5, "x": 0.5, "y": 0.5, "scale": 0.5, "flip": 1.0, "contrast": 0.5}


def parameters(**changes):
    """One row of numbers that changes nothing, but for those named."""
    return torch.tensor([[*(IDENTITY | changes).values()]])


def dot(row, column, size=64):
    image = torch.zeros(1, 1, size, size)
    image[0, 0, row, column] = 1
    return image


def place(image):
    """Centre of mass (row, column)."""
    image = image[0, 0].double()
    ticks = torch.arange(image.shape[0], dtype=torch.float64)
    return [float((image.sum(dim) * ticks).sum() / image.sum()) for dim in (1, 0)]


@given(st.integers(1, 5), st.integers(2, 40))
def test_middle_numbers_change_nothing(count, size):
    images = torch.rand(count, 1, size, size)
    augment = RandomAffineBatch(contrast=(0.5, 2.0))
    out = augment.apply(images, parameters().repeat(count, 1))
    assert torch.allclose(out, images, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "drawn", "start", "end"),
    [
        ({"rotation_degrees": 90}, "angle", (31, 50), (13, 31)),  # counter-clockwise, about 31.5
        ({"translation": 0.125}, "y", (30, 30), (38, 30)),  # a fraction of the side
        ({"translation": 0.125}, "x", (30, 30), (30, 38)),
        ({"scale": (1.0, 2.0)}, "scale", (40, 24), (48.5, 16.5)),
    ],
)
def test_what_the_highest_number_does_to_a_dot(options, drawn, start, end):
    moved = RandomAffineBatch(**options).apply(dot(*start), parameters(**{drawn: 1.0}))
    assert place(moved) == pytest.approx(end, abs=0.02)


def test_a_flip_mirrors_the_columns_after_the_shift():
    images = torch.rand(2, 1, 16, 16)
    rows = torch.cat([parameters(flip=0.49), parameters(flip=0.51)])
    out = RandomAffineBatch(flip=0.5).apply(images, rows)
    assert torch.allclose(out, torch.stack([images[0].flip(-1), images[1]]), atol=1e-6)
    out = RandomAffineBatch(translation=0.1).apply(dot(30, 30, 100), parameters(x=1.0, flip=0.0))
    assert place(out) == pytest.approx([30, 99 - 40], abs=0.01)


def test_zeros_come_in_from_outside():
    out = RandomAffineBatch(translation=0.5).apply(torch.ones(1, 1, 10, 10), parameters(x=1.0))
    assert out[0, 0, 5].tolist() == pytest.approx([0] * 5 + [1] * 5)


def test_contrast_is_an_exponent():
    images = torch.rand(1, 1, 8, 8)
    augment = RandomAffineBatch(contrast=(0.5, 2.0))
    assert torch.allclose(augment.apply(images, parameters(contrast=1.0)), images**2, atol=1e-5)
    assert torch.allclose(augment.apply(images, parameters(contrast=0.0)), images**0.5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"flip": 0.0, "contrast": (0.5, 2)}])
def test_a_seed_means_what_it_always_did_under_any_options(options):
    """Of a slice 22 numbers are drawn and six used, then 128 for all that are not."""
    drawn, plain = (torch.Generator().manual_seed(0) for _ in range(2))
    rows = torch.rand(3, 22, generator=plain)
    torch.rand(3, 128, generator=plain)
    assert torch.equal(RandomAffineBatch(**options).draw(3, drawn), rows[:, :6])
    assert torch.equal(drawn.get_state(), plain.get_state())


def test_the_ranges_are_the_papers():
    augment = RandomAffineBatch()
    theta = augment.theta(augment.draw(4000, torch.Generator().manual_seed(0)))
    determinants = torch.linalg.det(theta[:, :, :2])
    scales = determinants.abs() ** -0.5
    assert (float(scales.min()), float(scales.max())) == pytest.approx((0.9, 1.1), abs=0.002)
    assert (determinants < 0).double().mean() == pytest.approx(0.5, abs=0.03)
    angles = torch.rad2deg(torch.atan2(theta[:, 1, 0].abs(), theta[:, 1, 1]))
    assert (float(angles.min()), float(angles.max())) == pytest.approx((0, 10), abs=0.05)
    forward = torch.linalg.inv(theta[:, :, :2]) @ theta[:, :, 2:]
    assert forward.abs().max() / 2 == pytest.approx(0.1, abs=0.001)
    assert theta.shape == (4000, 2, 3)


def test_every_rank_applies_its_part_of_one_draw():
    images = torch.rand(8, 1, 32, 32)
    augment = RandomAffineBatch(contrast=(0.8, 1.2))
    rows = augment.draw(8, torch.Generator().manual_seed(3))
    whole = augment.apply(images, rows)
    for rank in range(2):
        part = augment.apply(images[rank::2], rows[rank::2])
        assert torch.allclose(part, whole[rank::2], atol=1e-6)
    assert torch.equal(augment(images, torch.Generator().manual_seed(3)), whole)
