"""Axial orientation, spacing, points and coarser voxels."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from pathology_screen.geometry import axial_orientation, coarsen, map_grid, map_points, spacing

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def affine_of(order, signs, sizes):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * sizes
    return affine


@pytest.mark.parametrize("order, signs", ORIENTATIONS)
def test_axial_orientation_and_spacing_in_any_orientation(order, signs):
    sizes = [0.7, 5.0, 1.2]
    affine = affine_of(order, signs, sizes)
    axis, direction = axial_orientation(affine)
    assert order[axis] == 2 and direction == signs[axis]
    assert spacing(affine) == pytest.approx(sizes)


def test_axial_orientation_of_an_oblique_volume():
    angle = np.radians(25)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert axial_orientation(tilt @ np.diag([1, 1, -4, 1])) == (2, -1)


def test_points_are_mapped_as_by_a_matrix_product():
    affine = np.random.default_rng(0).normal(size=(4, 4))
    points = np.random.default_rng(1).normal(size=(3, 100))
    np.testing.assert_allclose(map_points(affine[:3], points), apply_affine(affine, points.T).T)


def test_a_grid_is_mapped_as_its_indices_are():
    affine = np.vstack([np.random.default_rng(0).normal(size=(3, 4)), [0, 0, 0, 1]])
    index = np.indices((4, 1, 3)).reshape(3, -1)
    found = map_grid(affine, (4, 1, 3))
    assert found.shape == (3, 4, 1, 3)
    np.testing.assert_allclose(found.reshape(3, -1), map_points(affine, index))


def test_coarser_voxels_fill_the_field_of_view_and_keep_the_mean_and_the_middle():
    i, j, k = np.indices((40, 30, 12))
    volume = np.exp(-(((i - 20) / 6) ** 2 + ((j - 15) / 5) ** 2 + ((k - 6) / 3) ** 2))
    image = nib.Nifti1Image(volume.astype(np.float32), affine_of((1, 0, 2), (-1, 1, 1), (1, 1, 4)))
    coarse = coarsen(image, 2.0)
    assert coarse.shape == (20, 15, 12)
    assert spacing(coarse.affine) == pytest.approx([2, 2, 4])
    ends = [np.array([[-0.5] * 3, np.array(one.shape) - 0.5]) for one in (image, coarse)]
    corners = [apply_affine(one.affine, end) for one, end in zip((image, coarse), ends)]
    np.testing.assert_allclose(*corners)
    found = np.asarray(coarse.dataobj)
    assert found.mean() == pytest.approx(volume.mean(), rel=0.01)
    places = []
    for one, values in ((image, volume), (coarse, found)):
        middle = np.average(np.indices(values.shape).reshape(3, -1), 1, values.ravel())
        places.append(apply_affine(one.affine, middle))
    np.testing.assert_allclose(*places, atol=0.1)
