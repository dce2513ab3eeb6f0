"""The synthetic scans are brains, and repeat by their seed."""

import time
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from cohorts.simulated import SEED, distance_mm, white_matter
from scipy import ndimage as ndi

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.simulation import simulate, simulate_plane
from pathology_screen.space import find_brain, register, take_plane


@pytest.fixture(scope="module")
def template():
    return load_template()


@pytest.fixture(scope="module")
def plane(template):
    """Image (0-1) and brain of the same person in the standard plane."""
    image, brain = simulate_plane(template, SEED)
    return image / 255, brain


def test_geometry_is_that_of_axial_slices_over_the_whole_head(healthy):
    pixel_x, pixel_y, spacing = np.diag(healthy.affine)[:3]
    assert pixel_x == pixel_y and 0.9 <= pixel_x <= 1.1 and 2.5 <= spacing <= 3
    extent = np.multiply(healthy.image.shape, np.diag(healthy.affine)[:3])
    assert extent == pytest.approx([208, 244, 188], abs=1.5)
    dtypes = (healthy.image.dtype, healthy.mask.dtype, healthy.brain.dtype)
    assert dtypes == (np.int16, np.uint8, bool) and not healthy.mask.any()
    middle = nib.affines.apply_affine(healthy.affine, (np.array(healthy.image.shape) - 1) / 2)
    assert np.all(np.abs(middle) <= 6)  # the head is near the middle of the scanner


def test_the_brain_has_an_adults_size_and_is_not_cut(healthy):
    millilitres = healthy.brain.sum() * np.diag(healthy.affine)[:3].prod() / 1000
    assert 1100 < millilitres < 1900
    border = np.ones(healthy.brain.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert not healthy.brain[border].any()


def test_tissue_contrast_is_that_of_t1w(healthy, ill):
    """Compare with the ventricles of the same subject, by the kind that marks them."""
    marked = ill("enlarged ventricles")
    inner = ndi.binary_erosion(marked.mask, np.ones((5, 5, 1)))
    fluid = (marked.image / white_matter(marked))[inner]
    inside = (healthy.image / white_matter(healthy))[healthy.brain]
    assert np.median(fluid) < 0.4
    assert 0.6 < np.median(inside) < 0.99  # grey and white matter
    assert np.percentile(inside, 2) < 0.45  # sulci


def test_scalp_is_bright_bone_dark_and_air_noisy(healthy):
    image = healthy.image / white_matter(healthy)
    air = image[:8, :8, -40:]
    assert 0 < air.mean() < 0.06 and air.std() > 0
    outside = distance_mm(healthy.brain, healthy.affine)
    upper = np.arange(image.shape[2]) > image.shape[2] * 0.6
    shell = [image[(outside > near) & (outside <= near + 1) & upper] for near in range(25)]
    medians = np.array([np.median(values) for values in shell])
    bone, fat = medians[2:9].min(), medians[6:20].max()
    assert bone < 0.3 and fat > 0.6 and medians[-1] < 0.06
    assert np.argmin(medians[2:9]) + 2 < np.argmax(medians[6:20]) + 6  # bone lies inside the fat


def test_slices_of_one_volume_belong_together(healthy):
    middle = healthy.image.shape[2] // 2
    brains = [healthy.brain[..., level] for level in range(middle, middle + 8)]
    for low, high in pairwise(brains):
        assert 2 * (low & high).sum() / (low.sum() + high.sum()) > 0.93


def test_same_seed_gives_the_same_voxels_and_another_seed_does_not(template, healthy, plane):
    again = simulate(template, SEED)
    assert all(map(np.array_equal, again, healthy))
    assert np.array_equal(simulate_plane(template, SEED)[0], np.rint(255 * plane[0]))
    assert not np.array_equal(simulate_plane(template, (8, 1))[0], np.rint(255 * plane[0]))


def test_the_plane_is_normalised_to_the_brain(plane):
    image, brain = plane
    assert image.shape == brain.shape == (233, 197)
    assert np.percentile(image[brain], 98) == pytest.approx(1, abs=0.01) and image.max() == 1
    rows, columns = (np.flatnonzero(brain.any(axis=axis)) for axis in (1, 0))
    assert 160 < np.ptp(rows) < 190 and 125 < np.ptp(columns) < 155  # mm, as the template's
    assert 60 < np.median(np.nonzero(image < 0.06)[0]) < 200  # air all around


@pytest.mark.parametrize("kind", ["healthy", "mass"])
def test_the_whole_chain_takes_a_volume_to_what_the_slices_show(
    template, healthy, ill, plane, kind
):
    """Brain extraction and registration in earnest."""
    scan = healthy if kind == "healthy" else ill(kind)
    brain, extracted = find_brain(scan.image.astype(np.float32), scan.affine)
    assert not extracted
    assert 2 * (brain & scan.brain).sum() / (brain.sum() + scan.brain.sum()) > 0.95
    to_scan, fit = register(scan.image, scan.affine, brain)
    assert fit.dice > 0.93 and fit.correlation > 0.5
    found = take_plane(scan.image, scan.affine, to_scan)
    inside = take_plane(brain, scan.affine, to_scan) > 0.5
    found = np.clip(found / np.percentile(found[inside], 98), 0, 1)
    image, expected = plane
    assert 2 * (inside & expected).sum() / (inside.sum() + expected.sum()) > 0.95
    assert np.corrcoef(found.ravel(), image.ravel())[0, 1] > (0.85 if kind == "healthy" else 0.8)
    assert found[inside].mean() == pytest.approx(image[expected].mean(), abs=0.06)
    edges = [np.abs(np.diff(picture, axis=0)).mean() for picture in (found, image)]
    assert edges[0] == pytest.approx(edges[1], rel=0.2)  # as sharp
    if kind == "mass":
        assert take_plane(scan.mask, scan.affine, to_scan, order=0).sum() > 100


def test_the_default_cohort_takes_under_90_seconds_on_two_cores(template):
    """212 slices and 18 volumes, of which 8 have a focal lesion, which takes longest."""
    spent = []
    for make in (simulate_plane, simulate, lambda *seed: simulate(*seed, "mass")):
        start = time.process_time()
        make(template, (0, 1))
        spent.append(time.process_time() - start)
    assert 212 * spent[0] + 10 * spent[1] + 8 * spent[2] < 160  # CPU seconds
