"""The synthetic scans are heads that repeat by their seed, and a lesion changes what it should."""

import time
from functools import cache
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage as ndi

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.simulation import KINDS, Subject, simulate, simulate_plane
from pathology_screen.space import find_brain, register, take_plane

SEED = (7, 1)


@cache
def person(kind="healthy"):
    """A volume, and its intensities, white matter being 1; the same person whatever the kind."""
    volume = simulate(load_template(), SEED, kind)
    return volume, volume.image / np.percentile(volume.image[volume.brain], 95)


@cache
def plane():
    """Image (0-1) and brain of the same person in the standard plane."""
    image, brain = simulate_plane(load_template(), SEED)
    return image / 255, brain


def distance_mm(mask, affine):
    return ndi.distance_transform_edt(mask == 0, sampling=np.abs(np.diag(affine)[:3]))


def test_a_scan_has_axial_slices_over_the_whole_head_with_an_adults_brain():
    healthy, _ = person()
    size = np.diag(healthy.affine)[:3]
    assert size[0] == size[1] and 0.9 <= size[0] <= 1.1 and 2.5 <= size[2] <= 3
    assert healthy.image.shape * size == pytest.approx([208, 244, 188], abs=1.5)
    dtypes = (healthy.image.dtype, healthy.mask.dtype, healthy.brain.dtype)
    assert dtypes == (np.int16, np.uint8, bool) and not healthy.mask.any()
    middle = nib.affines.apply_affine(healthy.affine, (np.array(healthy.image.shape) - 1) / 2)
    assert np.all(np.abs(middle) <= 6)  # the head is near the middle of the scanner
    assert 1100 < healthy.brain.sum() * size.prod() / 1000 < 1900  # ml
    assert healthy.brain[1:-1, 1:-1, 1:-1].sum() == healthy.brain.sum()  # it is not cut
    half = healthy.image.shape[2] // 2
    for low, high in pairwise(healthy.brain[..., level] for level in range(half, half + 8)):
        assert 2 * (low & high).sum() / (low.sum() + high.sum()) > 0.93


def test_tissue_contrast_is_that_of_t1w():
    """Compare with the ventricles of the same subject, by the kind that marks them."""
    (healthy, image), (wide, wide_image) = person(), person("enlarged ventricles")
    fluid = wide_image[ndi.binary_erosion(wide.mask, np.ones((5, 5, 1)))]
    inside = image[healthy.brain]
    assert np.median(fluid) < 0.4
    assert 0.6 < np.median(inside) < 0.99  # grey and white matter
    assert np.percentile(inside, 2) < 0.45  # sulci


def test_scalp_is_bright_bone_dark_and_air_noisy():
    healthy, image = person()
    air = image[:8, :8, -40:]
    assert 0 < air.mean() < 0.06 and air.std() > 0
    outside = distance_mm(healthy.brain, healthy.affine)
    upper = np.arange(image.shape[2]) > image.shape[2] * 0.6
    shell = [image[(outside > near) & (outside <= near + 1) & upper] for near in range(25)]
    medians = np.array([np.median(values) for values in shell])
    bone, fat = medians[2:9].min(), medians[6:20].max()
    assert bone < 0.3 and fat > 0.6 and medians[-1] < 0.06
    assert np.argmin(medians[2:9]) + 2 < np.argmax(medians[6:20]) + 6  # bone lies inside the fat


def test_same_seed_gives_the_same_voxels_and_another_seed_does_not():
    template = load_template()
    assert all(map(np.array_equal, simulate(template, SEED), person()[0]))
    assert np.array_equal(simulate_plane(template, SEED)[0], np.rint(255 * plane()[0]))
    assert not np.array_equal(simulate_plane(template, (8, 1))[0], np.rint(255 * plane()[0]))


def test_the_plane_is_normalised_to_the_brain():
    image, brain = plane()
    assert image.shape == brain.shape == (233, 197)
    assert np.percentile(image[brain], 98) == pytest.approx(1, abs=0.01) and image.max() == 1
    rows, columns = (np.flatnonzero(brain.any(axis=axis)) for axis in (1, 0))
    assert 160 < np.ptp(rows) < 190 and 125 < np.ptp(columns) < 155  # mm, as the template's
    assert 60 < np.median(np.nonzero(image < 0.06)[0]) < 200  # air all around


@pytest.mark.parametrize(("kind", "alike"), [("healthy", 0.85), ("mass", 0.8)])
def test_the_whole_chain_takes_a_volume_to_what_the_slices_show(kind, alike):
    """Brain extraction and registration in earnest."""
    scan, _ = person(kind)
    brain, extracted = find_brain(scan.image.astype(np.float32), scan.affine)
    assert not extracted
    assert 2 * (brain & scan.brain).sum() / (brain.sum() + scan.brain.sum()) > 0.95
    to_scan, fit = register(scan.image, scan.affine, brain)
    assert fit.dice > 0.93 and fit.correlation > 0.5
    found = take_plane(scan.image, scan.affine, to_scan)
    inside = take_plane(brain, scan.affine, to_scan) > 0.5
    found = np.clip(found / np.percentile(found[inside], 98), 0, 1)
    image, expected = plane()
    assert 2 * (inside & expected).sum() / (inside.sum() + expected.sum()) > 0.95
    assert np.corrcoef(found.ravel(), image.ravel())[0, 1] > alike
    assert found[inside].mean() == pytest.approx(image[expected].mean(), abs=0.06)
    edges = [np.abs(np.diff(picture, axis=0)).mean() for picture in (found, image)]
    assert edges[0] == pytest.approx(edges[1], rel=0.2)  # as sharp
    assert (take_plane(scan.mask, scan.affine, to_scan, order=0).sum() > 100) == (kind == "mass")


def test_the_default_cohort_takes_under_90_seconds_on_two_cores():
    """212 slices and 18 volumes, of which 8 have a focal lesion, which takes longest."""
    spent = []
    for make in (simulate_plane, simulate, lambda *seed: simulate(*seed, "mass")):
        start = time.process_time()
        make(load_template(), (0, 1))
        spent.append(time.process_time() - start)
    assert 212 * spent[0] + 10 * spent[1] + 8 * spent[2] < 160  # CPU seconds


@pytest.mark.parametrize("kind", KINDS)
def test_a_lesion_lies_in_the_brain_and_the_standard_plane_and_changes_nothing_else(kind):
    (healthy, before), (scan, after) = person(), person(kind)
    assert scan.image.shape == healthy.image.shape and np.array_equal(scan.affine, healthy.affine)
    assert set(np.unique(scan.mask)) == {0, 1} and not np.any(scan.mask[~scan.brain])
    subject, marked = Subject(load_template(), SEED, kind), scan.mask > 0
    to_scan = subject.anatomy.standard(load_template())
    to_scan[:3, 3] += subject.centre
    assert take_plane(scan.mask, scan.affine, to_scan, order=0).sum() > 100  # mm2

    change = (scan.image - healthy.image.astype(float)) * (before.max() / healthy.image.max())
    away = distance_mm(scan.mask, scan.affine)
    if kind == "mass":  # pushes the brain around it, but the skull does not give way
        assert np.abs(change[(away > 3) & (away < 10) & healthy.brain]).mean() > 0.05
        assert (scan.brain != healthy.brain).sum() < 0.01 * healthy.brain.sum()
    elif kind == "enlarged ventricles":  # marked whole and dark, where tissue was before
        assert marked.sum(axis=(0, 1)).max() * scan.affine[0, 0] ** 2 > 1000  # mm2
        assert after[marked].mean() < 0.5
        assert scan.image[marked].mean() < healthy.image[marked].mean()
    else:
        assert np.abs(change[away > 12]).max() < 0.01
        sign = 1 if kind == "hyperintense lesion" else -1
        assert sign * change[marked].mean() > 0.15
