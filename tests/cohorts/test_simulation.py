"""The synthetic scans: they are brains, the same seed gives the same one, and a lesion changes what it should."""

import time
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage as ndi

from pathology_screen.cohorts import anatomy
from pathology_screen.cohorts.anatomy import SCALP_MARGIN, load_template, random_field
from pathology_screen.cohorts.lesions import KINDS
from pathology_screen.cohorts.simulation import simulate
from pathology_screen.errors import ConfigError


@pytest.fixture(scope="module")
def template():
    return load_template()


@pytest.fixture(scope="module")
def healthy(template):
    return simulate(template, (7, 1), levels=5)


def with_lesion(template, kind):
    return simulate(template, (7, 1), kind, levels=5)


def distance_mm(mask, affine):
    """Distance of every voxel from the mask, mm."""
    return ndi.distance_transform_edt(mask == 0, sampling=np.abs(np.diag(affine)[:3]))


def white_matter(volume):
    return np.percentile(volume.image[volume.image > 0], 95)


def test_geometry_is_that_of_clinical_axial_slices(healthy):
    pixel_x, pixel_y, spacing = np.diag(healthy.affine)[:3]
    assert pixel_x == pixel_y and 0.9 <= pixel_x <= 1.1
    assert spacing == 5
    width, length, levels = healthy.image.shape
    assert levels == 5
    assert width * pixel_x == pytest.approx(200, abs=1) and length * pixel_y == pytest.approx(232, abs=1)
    assert healthy.image.dtype == np.int16 and healthy.mask.dtype == np.uint8
    middle = healthy.affine[:3, :3] @ ((np.array(healthy.image.shape) - 1) / 2) + healthy.affine[:3, 3]
    assert np.all(np.abs(middle) <= 6)  # the head is near the middle of the scanner


def test_background_is_exactly_zero_and_the_brain_has_an_adults_size(healthy):
    inside = healthy.image > 0
    for level in range(5):
        parts, count = ndi.label(ndi.binary_fill_holes(inside[..., level]))
        largest = np.bincount(parts.ravel())[1:].max()
        assert count == 1 or largest > 0.99 * inside[..., level].sum()
    rows = np.flatnonzero(inside[..., 2].any(axis=0))
    assert 150 < (rows[-1] - rows[0]) * healthy.affine[1, 1] < 200


def test_tissue_contrast_is_that_of_t1w(template, healthy):
    """Compare with the ventricles of the same subject, which are known from the kind that marks them."""
    image = healthy.image / white_matter(healthy)
    marked = with_lesion(template, "enlarged ventricles")
    fluid = (marked.image / white_matter(marked))[ndi.binary_erosion(marked.mask, np.ones((5, 5, 1)))]
    inside = image[image > 0]
    assert np.median(fluid) < 0.4
    assert 0.6 < np.median(inside) < 0.99  # grey and white matter
    assert np.percentile(inside, 2) < 0.45  # sulci


def test_slices_of_one_volume_belong_together(template, healthy):
    other = simulate(template, (7, 2), levels=5)
    brains = [healthy.image[..., level] > 0 for level in range(5)]
    for low, high in pairwise(brains):
        assert 2 * (low & high).sum() / (low.sum() + high.sum()) > 0.93

    def correlation(a, b):
        both = (a > 0) & (b > 0)
        return np.corrcoef(a[both], b[both])[0, 1]

    near = correlation(healthy.image[..., 2], healthy.image[..., 3])
    shape = np.minimum(healthy.image.shape, other.image.shape)
    strange = correlation(*(v.image[: shape[0], : shape[1], 2].astype(float) for v in (healthy, other)))
    assert near > strange


def test_same_seed_gives_the_same_voxels_and_another_seed_does_not(template, healthy):
    again = simulate(template, (7, 1), levels=5)
    assert np.array_equal(again.image, healthy.image) and np.array_equal(again.affine, healthy.affine)
    other = simulate(template, (8, 1), levels=5)
    assert other.image.shape != healthy.image.shape or not np.array_equal(other.image, healthy.image)


def test_healthy_volumes_have_an_empty_mask(healthy):
    assert not healthy.mask.any()


@pytest.mark.parametrize("kind", KINDS)
def test_mask_lies_in_the_brain_at_the_middle_levels(template, healthy, kind):
    ill = with_lesion(template, kind)
    assert ill.image.shape == healthy.image.shape and np.array_equal(ill.affine, healthy.affine)
    assert set(np.unique(ill.mask)) == {0, 1}
    assert not np.any(ill.mask[ill.image == 0])
    assert ill.mask[..., 2].any() and ill.mask[..., 3].any()


@pytest.mark.parametrize("kind", ["hypointense lesion", "hyperintense lesion", "resection cavity"])
def test_lesion_changes_the_scan_at_its_mask_and_nowhere_else(template, healthy, kind):
    ill = with_lesion(template, kind)
    change = (ill.image.astype(float) - healthy.image) / white_matter(healthy)
    away = distance_mm(ill.mask, ill.affine)
    assert np.abs(change[away > 12]).max() < 0.01
    sign = 1 if kind == "hyperintense lesion" else -1
    assert sign * change[ill.mask > 0].mean() > 0.15


def test_mass_pushes_the_brain_around_it(template, healthy):
    ill = with_lesion(template, "mass")
    change = np.abs(ill.image.astype(float) - healthy.image) / white_matter(healthy)
    away = distance_mm(ill.mask, ill.affine)
    assert change[(away > 3) & (away < 10) & (healthy.image > 0)].mean() > 0.05
    outlines = (ill.image > 0) != (healthy.image > 0)
    assert outlines.sum() < 0.01 * (healthy.image > 0).sum()  # the skull does not give way


def test_enlarged_ventricles_are_marked_whole_and_dark(template, healthy):
    ill = with_lesion(template, "enlarged ventricles")
    marked = ill.mask > 0
    assert marked[..., 2].sum() * ill.affine[0, 0] ** 2 > 1000  # mm2
    assert ill.image[marked].mean() < 0.5 * white_matter(ill)
    assert ill.image[marked].mean() < healthy.image[marked].mean()  # tissue was there before


def test_head_keeps_scalp_and_noisy_air(healthy):
    whole = simulate(load_template(SCALP_MARGIN), (7, 1), levels=3, head=True)
    air = whole.image[:10, :10]
    assert 0 < air.mean() < 0.06 * white_matter(healthy) and air.std() > 0
    brain = healthy.image[..., 1:4] > 0
    around = ndi.binary_dilation(brain, np.ones((3, 3, 1)), iterations=20) & ~brain
    assert np.percentile(whole.image[around], 90) > 0.8 * white_matter(healthy)  # fat under the skin


def test_random_field_is_smooth_periodic_and_standardised():
    field = random_field(np.random.default_rng(3), sigma=6.0, nodes=32)
    grid = np.stack(np.meshgrid(*[np.arange(0, 128, 4, dtype=np.float32)] * 3, indexing="ij"))
    values = field(grid)
    assert abs(values.mean()) < 0.05 and values.std() == pytest.approx(1, abs=0.1)
    assert np.allclose(field(grid + 32 * 6.0 / 1.5), values, atol=1e-3)
    assert np.abs(field(grid + np.float32(0.5)) - values).max() < 0.5


def test_missing_maps_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(anatomy, "template_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match="mni_icbm152_t1"):
        anatomy.load_template.__wrapped__()


def test_missing_nilearn_is_named(monkeypatch):
    monkeypatch.setattr(anatomy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install nilearn"):
        anatomy.template_folder()


def test_a_volume_takes_so_little_time_that_the_default_cohort_takes_under_two_minutes(template):
    spent = []
    for number in range(2):
        start = time.process_time()
        simulate(template, (0, number), levels=11)
        spent.append(time.process_time() - start)
    assert min(spent) < 2.0  # CPU seconds; 84 volumes on 2 cores
