"""A lesion changes what it should, and nothing else."""

import numpy as np
import pytest
from cohorts.simulated import SEED, distance_mm, white_matter

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.lesions import KINDS
from pathology_screen.cohorts.simulation import Subject
from pathology_screen.space import take_plane


@pytest.mark.parametrize("kind", KINDS)
def test_mask_lies_in_the_brain_and_the_standard_plane_cuts_it(healthy, ill, kind):
    scan, template = ill(kind), load_template()
    assert scan.image.shape == healthy.image.shape and np.array_equal(scan.affine, healthy.affine)
    assert set(np.unique(scan.mask)) == {0, 1}
    assert not np.any(scan.mask[~scan.brain])
    subject = Subject(template, SEED, kind)
    to_scan = subject.anatomy.standard(template)
    to_scan[:3, 3] += subject.scanner.centre
    assert take_plane(scan.mask, scan.affine, to_scan, order=0).sum() > 100  # mm2


@pytest.mark.parametrize("kind", ["hypointense lesion", "hyperintense lesion", "resection cavity"])
def test_lesion_changes_the_scan_at_its_mask_and_nowhere_else(healthy, ill, kind):
    scan = ill(kind)
    change = (scan.image.astype(float) - healthy.image) / white_matter(healthy)
    away = distance_mm(scan.mask, scan.affine)
    assert np.abs(change[away > 12]).max() < 0.01
    sign = 1 if kind == "hyperintense lesion" else -1
    assert sign * change[scan.mask > 0].mean() > 0.15


def test_mass_pushes_the_brain_around_it(healthy, ill):
    scan = ill("mass")
    change = np.abs(scan.image.astype(float) - healthy.image) / white_matter(healthy)
    away = distance_mm(scan.mask, scan.affine)
    assert change[(away > 3) & (away < 10) & healthy.brain].mean() > 0.05
    moved = (scan.brain != healthy.brain).sum()
    assert moved < 0.01 * healthy.brain.sum()  # the skull does not give way


def test_enlarged_ventricles_are_marked_whole_and_dark(healthy, ill):
    scan = ill("enlarged ventricles")
    marked = scan.mask > 0
    assert marked.sum(axis=(0, 1)).max() * scan.affine[0, 0] ** 2 > 1000  # mm2
    assert scan.image[marked].mean() < 0.5 * white_matter(scan)
    assert scan.image[marked].mean() < healthy.image[marked].mean()  # tissue was there before
