"""The augmentation of training batches."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.transforms import RandomAffineBatch

IDENTITY = [0.5, 0.5, 0.5, 0.5, 1.0, 0.5]
"""Angle, shift x, shift y, scale, flip, contrast."""


def parameters(**changes):
    """One row of numbers that changes nothing, but for those named."""
    row = list(IDENTITY)
    names = ["angle", "x", "y", "scale", "flip", "contrast"]
    for name, value in changes.items():
        row[names.index(name)] = value
    return torch.tensor([row])


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
    out = augment.apply(images, torch.tensor([IDENTITY]).repeat(count, 1))
    assert torch.allclose(out, images, atol=1e-5)


def test_a_positive_angle_turns_counter_clockwise():
    augment = RandomAffineBatch(rotation_degrees=90)
    right_of_centre = dot(31, 50)  # centre of rotation at 31.5, 31.5
    turned = augment.apply(right_of_centre, parameters(angle=1.0))
    assert place(turned) == pytest.approx([31.5 - 18.5, 31.0], abs=0.01)


@pytest.mark.parametrize(("name", "axis"), [("y", 0), ("x", 1)])
def test_a_shift_is_a_fraction_of_the_side(name, axis):
    augment = RandomAffineBatch(translation=0.1)
    moved = place(augment.apply(dot(30, 30, 100), parameters(**{name: 1.0})))
    expected = [30.0, 30.0]
    expected[axis] += 10
    assert moved == pytest.approx(expected, abs=0.01)


def test_a_scale_above_one_enlarges_about_the_centre():
    out = RandomAffineBatch(scale=(1.0, 2.0)).apply(dot(40, 24), parameters(scale=1.0))
    assert place(out) == pytest.approx([31.5 + 2 * 8.5, 31.5 - 2 * 7.5], abs=0.02)


def test_a_flip_mirrors_the_columns():
    images = torch.rand(2, 1, 16, 16)
    rows = torch.cat([parameters(flip=0.49), parameters(flip=0.51)])
    out = RandomAffineBatch(flip=0.5).apply(images, rows)
    assert torch.allclose(out[0], images[0].flip(-1), atol=1e-6)
    assert torch.allclose(out[1], images[1], atol=1e-6)


def test_the_flip_comes_after_the_shift():
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


def test_a_seed_means_what_it_always_did():
    """Of a slice 22 numbers are drawn and six used, then 128 for all that are not."""
    drawn, plain = (torch.Generator().manual_seed(0) for _ in range(2))
    rows = torch.rand(3, 22, generator=plain)
    torch.rand(3, 128, generator=plain)
    assert torch.equal(RandomAffineBatch().draw(3, drawn), rows[:, :6])
    assert torch.equal(drawn.get_state(), plain.get_state())


def test_the_ranges_are_the_papers():
    augment = RandomAffineBatch()
    theta = augment.theta(augment.draw(4000, torch.Generator().manual_seed(0)))
    determinants = torch.linalg.det(theta[:, :, :2])
    scales = determinants.abs() ** -0.5
    assert scales.min() == pytest.approx(0.9, abs=0.002)
    assert scales.max() == pytest.approx(1.1, abs=0.002)
    assert (determinants < 0).double().mean() == pytest.approx(0.5, abs=0.03)
    angles = torch.rad2deg(torch.atan2(theta[:, 1, 0].abs(), theta[:, 1, 1]))
    assert angles.max() == pytest.approx(10, abs=0.05)
    forward = torch.linalg.inv(theta[:, :, :2]) @ theta[:, :, 2:]
    assert forward.abs().max() / 2 == pytest.approx(0.1, abs=0.001)
    assert theta.shape == (4000, 2, 3)
    assert math.isclose(float(angles.min()), 0, abs_tol=0.05)


def test_every_rank_applies_its_part_of_one_draw():
    images = torch.rand(8, 1, 32, 32)
    augment = RandomAffineBatch(contrast=(0.8, 1.2))
    rows = augment.draw(8, torch.Generator().manual_seed(3))
    whole = augment.apply(images, rows)
    for rank in range(2):
        part = augment.apply(images[rank::2], rows[rank::2])
        assert torch.allclose(part, whole[rank::2], atol=1e-6)
    assert torch.equal(augment(images, torch.Generator().manual_seed(3)), whole)


def test_options_never_change_how_much_is_drawn():
    plain, full = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    options = {"flip": 0.0, "contrast": (0.5, 2)}
    first, second = RandomAffineBatch().draw(3, plain), RandomAffineBatch(**options).draw(3, full)
    assert torch.equal(first, second)
    assert torch.equal(plain.get_state(), full.get_state())
