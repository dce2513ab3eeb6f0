"""Axial orientation and levels."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.geometry import axial_level, axial_orientation, spacing

ORIENTATIONS = [
    (order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]


def affine_of(order, signs, sizes=(1.0, 1.0, 1.0), offset=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * sizes[axis]
    affine[:3, 3] = offset
    return affine


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_axial_orientation_finds_the_axis_and_its_direction(order, signs):
    axis, direction = axial_orientation(affine_of(order, signs, (0.7, 5.0, 1.2)))
    assert order[axis] == 2
    assert direction == signs[axis]


def test_axial_orientation_of_an_oblique_volume():
    angle = np.radians(25)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert axial_orientation(tilt @ np.diag([1, 1, -4, 1])) == (2, -1)


def test_spacing_is_the_length_of_the_columns():
    assert spacing(affine_of((2, 0, 1), (-1, 1, -1), (0.5, 2.0, 6.0))) == pytest.approx(
        [0.5, 2.0, 6.0]
    )


@pytest.mark.parametrize(
    ("extent", "level", "expected"),
    [
        (25, "middle", 12),
        (16, "middle", 8),
        (1, "middle", 0),
        ((10, 20), "middle", 15),
        (25, 0, 0),
        (25, 24, 24),
        (25, np.int64(3), 3),
        (16, 0.5, 8),
        (25, 0.55, 13),
        ((100, 200), 0.999, 199),
        ((100, 101), 0.3, 100),
    ],
)
def test_axial_level(extent, level, expected):
    assert axial_level(extent, level) == expected


@given(st.integers(1, 500), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_fraction_always_names_a_level_of_the_extent(count, fraction):
    assert 7 <= axial_level((7, 7 + count), fraction) < 7 + count


@pytest.mark.parametrize("level", [-1, 25])
def test_a_level_outside_the_volume_is_refused(level):
    with pytest.raises(InputError) as refusal:
        axial_level(25, level)
    assert refusal.value.code == "slice_out_of_range"


@pytest.mark.parametrize("level", ["top", "all", 0.0, 1.0, 12.0, -0.5])
def test_what_is_no_level_is_a_wrong_option(level):
    with pytest.raises(ConfigError):
        axial_level(25, level)
