"""The standard plane: which way it runs, what it shows of a scan, and the exact way back to the
scan's voxels."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from pathology_screen.geometry import DISPLAY_AXES
from pathology_screen.space import (
    PLANE_SHAPE,
    PLANE_Z,
    brain_in_plane,
    load_brain_template,
    plane_affine,
    put_back,
    take_plane,
)

CODES = {"axial": "RAS", "sagittal": "PSL", "coronal": "LIP", "oblique": "RAS"}
CODES |= {"thick": "LPS", "thick sagittal": "ASR"}
SIZES = {"thick": (2.0, 1.8, 6.0), "thick sagittal": (2.0, 2.0, 6.0)}
SHIFT, FACTORS = [6.0, -20.0, 14.0], [0.93, 0.97, 0.9]

MOVED = np.eye(4)
"""mm of MNI152 -> mm of a scanner in which the head lies turned, shifted and smaller."""
MOVED[:3, :3] = Rotation.from_euler("xyz", [12, -5, 8], degrees=True).as_matrix() * FACTORS
MOVED[:3, 3] = SHIFT


def axis_aligned(sizes, first):
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = first
    return affine


@pytest.fixture(scope="module", params=CODES)
def grid(request):
    """Shape and affine of a scan that shows the whole of a head around the origin; and (I, J, K,
    3), where its voxels lie in MNI152, mm."""
    sizes = np.array(SIZES.get(request.param, (2.3, 2.0, 2.1)))
    order = nib.orientations.axcodes2ornt(CODES[request.param])
    axes = np.eye(3)[:, order[:, 0].astype(int)] * order[:, 1]
    if request.param == "oblique":
        axes = Rotation.from_euler("xyz", [20, 12, -15], degrees=True).as_matrix() @ axes
    shape = tuple(int(270 / size) for size in sizes)
    affine = np.eye(4)
    affine[:3, :3] = axes * sizes
    affine[:3, 3] = np.array(SHIFT) - affine[:3, :3] @ (np.array(shape) - 1) / 2
    index = np.moveaxis(np.indices(shape), 0, -1)
    return shape, affine, apply_affine(np.linalg.inv(MOVED) @ affine, index)


def pixels() -> np.ndarray:
    """(233, 197, 3), where the pixels of the plane lie in MNI152, mm."""
    rows, columns = np.indices(PLANE_SHAPE)
    return apply_affine(plane_affine(), np.stack([rows, columns, 0 * rows], -1))


def test_plane_is_a_level_of_the_template_in_display_orientation():
    template = load_brain_template()
    assert nib.aff2axcodes(plane_affine()) == tuple(DISPLAY_AXES)
    taken = take_plane(np.asarray(template.dataobj), template.affine, np.eye(4))
    assert taken.dtype == np.float32
    assert np.array_equal(taken, np.asarray(template.dataobj)[::-1, ::-1, 95].T)
    assert (template.affine @ [0, 0, 95, 1])[2] == PLANE_Z == 23.0


def test_plane_shows_what_lies_there(grid):
    _, affine, where = grid
    weights = np.array([1.0, -2.0, 0.5])
    taken = take_plane(1000 + where @ weights, affine, MOVED)
    inside = np.hypot(*np.moveaxis(pixels()[..., :2] / [75, 95], -1, 0)) < 1
    assert np.allclose(taken[inside], 1000 + pixels()[inside] @ weights, atol=0.01)


@pytest.mark.parametrize("z", [PLANE_Z, -60.0])
def test_values_come_back_to_the_voxels_that_the_plane_cuts(grid, z):
    shape, affine, where = grid
    values = 500 + pixels() @ [1.0, 2.0, 0.0]
    voxels, covered = put_back(values, MOVED, z, shape, affine)
    assert voxels.shape == covered.shape == shape and voxels.dtype == np.float32
    assert not voxels[~covered].any()
    x, y, height = np.moveaxis(where, -1, 0)
    inside = (np.abs(x) < 98) & (y > -134) & (y < 98)
    step = np.abs(np.gradient(height)).reshape(3, -1)[:, 0].max()  # mm in z
    near = np.abs(height - z) < max(step / 2, 0.5)
    assert np.array_equal(covered[inside], near[inside])
    expected = 500 + where[inside & near] @ [1.0, 2.0, 0.0]
    assert np.allclose(voxels[inside & near], expected, atol=0.01)
    assert not put_back(values, MOVED, 500.0, shape, affine)[1].any()


@pytest.mark.parametrize(
    "z, first, step, levels",
    [
        *[(z, -70, 6.0, [one]) for z, one in ((23.1, 16), (20.9, 15), (17.1, 15), (16.9, 14))],
        (23.0, 20, 0.25, [10, 11, 12, 13]),
    ],
)
def test_a_plane_along_slices_comes_back_as_one_thick_or_a_millimetre_of_thin_ones(
    z, first, step, levels
):
    """The thick slice at z = 20 reaches from 17 to 23."""
    affine = axis_aligned([1.0, 1.0, step], [-98, -134, first])
    _, covered = put_back(np.ones(PLANE_SHAPE), np.eye(4), z, (197, 233, 30), affine)
    assert np.flatnonzero(covered.any(axis=(0, 1))).tolist() == levels
    assert covered[..., levels].all()


@pytest.mark.parametrize("place", [(40, 30), (-55, -20), (3, -80)])
def test_a_marked_voxel_is_found_in_the_plane_and_again_in_the_scan(grid, place):
    shape, affine, _ = grid
    to_voxel = np.linalg.inv(affine) @ MOVED
    _, covered = put_back(np.zeros(PLANE_SHAPE), MOVED, PLANE_Z, shape, affine)
    cut = np.argwhere(covered)
    apart = np.linalg.norm(cut - apply_affine(to_voxel, [*place, PLANE_Z]), axis=1)
    voxel = tuple(cut[apart.argmin()])
    volume = np.zeros(shape, np.float32)
    volume[voxel] = 1000
    taken = take_plane(volume, affine, MOVED)
    row, column = np.unravel_index(taken.argmax(), PLANE_SHAPE)
    off = apply_affine(to_voxel, pixels()[row, column]) - voxel
    assert taken.max() > 100 and np.abs(off).max() <= 1  # voxel
    back, _ = put_back(taken, MOVED, PLANE_Z, shape, affine)
    assert np.unravel_index(back.argmax(), shape) == voxel


def test_between_the_planes_of_a_stack_values_are_interpolated():
    affine = axis_aligned([2.0, 2.0, 1.0], [-60, -60, 0])
    stack = np.stack([np.full(PLANE_SHAPE, value) for value in (10.0, 20.0, 60.0)])
    voxels, covered = put_back(stack, np.eye(4), [10.0, 20.0, 30.0], (50, 50, 45), affine)
    assert np.flatnonzero(covered[25, 25]).tolist() == list(range(10, 31))
    assert np.allclose(voxels[25, 25, [10, 15, 20, 25, 30]], [10, 15, 20, 40, 60])


def test_what_the_scan_does_not_show_is_black():
    affine = axis_aligned([1.0, 1.0, 1.0], [-30, -30, 0])
    taken = take_plane(np.ones((60, 60, 60)), affine, np.eye(4))
    assert np.array_equal(taken > 0, (np.abs(pixels()[..., :2] + 0.5) <= 29.5).all(axis=-1))


def test_the_brain_of_the_plane_is_the_templates():
    brain = brain_in_plane()
    assert 17_000 < brain.sum() < 21_000  # mm^2
    assert np.array_equal(brain, brain[:, ::-1])  # the template is symmetric
    assert brain[:, 98].any() and not brain[0].any() and not brain[:, 0].any()
    assert brain_in_plane(z_mm=60.0).sum() < brain.sum()
    padded = brain_in_plane((128, 128))
    assert padded.sum() * (233 / 128) ** 2 == pytest.approx(brain.sum(), rel=0.01)
    centre, expected = (np.argwhere(mask).mean(0) + 0.5 for mask in (padded, brain))
    assert centre == pytest.approx((expected + [0, 18]) * 128 / 233, abs=0.3)
