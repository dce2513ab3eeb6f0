"""Tissue told from background, whole heads from brains; and brain extraction."""

import nibabel as nib
import numpy as np
import pytest
from deepbet.bet import BrainExtraction
from head_builder import ellipsoids
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pathology_screen.errors import InputError
from pathology_screen.io import read_scan
from pathology_screen.space import extract_brain, find_brain, is_brain_extracted, tissue_mask


def test_negative_voxels_and_an_empty_image_are_background():
    image = np.array([-5.0, 0.0, 1.0, 10.0])
    assert tissue_mask(image).tolist() == [False, False, True, True]
    assert not tissue_mask(np.zeros((3, 3))).any()
    assert not tissue_mask(np.full((3, 3), -1.0)).any()


GRIDS = {
    "2 mm": ((100, 110, 90), (2.0, 2.0, 2.0)),
    "5 mm slices": ((130, 130, 32), (1.5, 1.5, 5.0)),
    "sagittal": ((60, 128, 128), (3.0, 1.7, 1.7)),
    "slab": ((120, 140, 5), (1.7, 1.7, 4.0)),
    "one slice": ((176, 208, 1), (1.0, 1.0, 5.0)),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("brain_only", [True, False])
def test_a_skull_is_noticed_on_any_grid(grid, brain_only):
    shape, sizes = GRIDS[grid]
    affine = np.diag([*sizes, 1.0])
    volume = ellipsoids(shape, affine, brain_only=brain_only)
    assert is_brain_extracted(volume, affine) == brain_only


def stored(order, signs, size):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * size
    return affine


ORDERS, SIGNS = st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3)


@settings(max_examples=8, deadline=None)
@given(ORDERS, SIGNS, st.booleans(), st.integers(0, 9))
def test_a_skull_is_noticed_in_any_orientation_with_noise(order, signs, brain_only, seed):
    affine = stored(order, signs, 2.5)
    shape = tuple(80 if axis == 2 else 84 for axis in order)
    clean = ellipsoids(shape, affine, brain_only=brain_only)
    noise = np.random.default_rng(seed).normal(0, 20, (2, *clean.shape))
    noisy = np.hypot(clean + noise[0], noise[1]).astype(np.float32)
    assert is_brain_extracted(noisy, affine) == brain_only


@pytest.mark.parametrize("background", [-500.0, 0.0])
def test_the_value_of_the_background_does_not_matter(background):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for brain_only in (True, False):
        volume = ellipsoids((100, 110, 90), affine, brain_only=brain_only)
        volume[volume == 0] = background
        assert is_brain_extracted(volume, affine) == brain_only


def test_a_field_of_view_filled_with_noise_is_not_taken_for_a_brain():
    noise = np.random.default_rng(0).uniform(100, 1000, (120, 130, 20)).astype(np.float32)
    assert not is_brain_extracted(noise, np.diag([2.0, 2.0, 5.0, 1.0]))


def test_a_slab_of_a_whole_head_is_refused_not_scored():
    affine = np.diag([1.7, 1.7, 4.0, 1.0])
    with pytest.raises(InputError, match="brain_extraction_failed.*20 mm"):
        find_brain(ellipsoids((120, 140, 5), affine, brain_only=False), affine)


@pytest.fixture
def threshold(monkeypatch):
    """In place of deepbet: all that is bright in a head is brain."""
    monkeypatch.setattr("pathology_screen.space.brain._segment", bright)


def bright(head):
    found = head > 100
    if not found.any():
        raise ValueError("attempt to get argmax of an empty sequence")
    return found


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(ORDERS, SIGNS)
def test_the_mask_comes_back_in_the_stored_orientation(monkeypatch, order, signs):
    def seen(head):
        heads.append(head)
        return bright(head)

    heads = []
    monkeypatch.setattr("pathology_screen.space.brain._segment", seen)
    affine = stored(order, signs, 4.0)
    shape = tuple((44, 50, 46)[axis] for axis in order)
    volume = ellipsoids(shape, affine, brain_only=True, offset=(8, -8, 4))
    assert np.array_equal(extract_brain(volume, affine), volume > 100)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))
    assert np.array_equal(heads[0], canonical.dataobj)


@pytest.mark.parametrize("size", [1.0, 7.0])
def test_an_implausible_volume_is_refused(threshold, size):
    affine = np.diag([size, size, size, 1.0])
    volume = np.zeros((120, 120, 120), np.float32)
    volume[40:80, 40:80, 40:80] = 1000  # 64 ml or 22 l
    with pytest.raises(InputError, match="brain_extraction_failed.*ml"):
        extract_brain(volume, affine)


def test_a_scan_in_which_deepbet_sees_nothing_is_refused(threshold):
    with pytest.raises(InputError, match="brain_extraction_failed"):
        extract_brain(np.zeros((60, 60, 60), np.float32), np.diag([4.0, 4.0, 4.0, 1.0]))


@pytest.mark.slow
def test_deepbet_finds_no_brain_in_noise():
    noise = np.random.default_rng(0).uniform(0, 1, (60, 60, 60)).astype(np.float32)
    with pytest.raises(InputError, match="brain_extraction_failed"):
        extract_brain(noise, np.diag([4.0, 4.0, 4.0, 1.0]))


def test_the_brain_of_an_extracted_scan_is_its_tissue_without_holes():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    volume = ellipsoids((100, 110, 90), affine, brain_only=True)
    outline = volume > 0
    volume[48:53, 50:58, 40:46] = 0  # a ventricle
    mask, extracted = find_brain(volume, affine)
    assert extracted and mask.dtype == bool and np.array_equal(mask, outline)


@pytest.mark.needs_shared
def test_real_scans_are_told_apart(shared_data):
    extracted = [*sorted(shared_data.glob("oasis/*"))[::10], *shared_data.glob("glioma/*T1w*")]
    for path in extracted:
        scan = read_scan(path)
        assert is_brain_extracted(scan.voxels, scan.affine), path.name
    for path in [*sorted(shared_data.glob("whole_head/*")), shared_data / "dicom_hanke_t1"]:
        scan = read_scan(path)
        assert not is_brain_extracted(scan.voxels, scan.affine), path.name
        axis = int(np.argmax(np.abs(scan.affine[2, :3])))
        n = scan.voxels.shape[axis] // 8
        up = scan.voxels if scan.affine[2, axis] > 0 else np.flip(scan.voxels, axis)
        for part in range(4, 7):  # slabs of an eighth of the head, from its middle up
            slab = np.take(up, range(part * n, part * n + n), axis)
            assert not is_brain_extracted(slab, scan.affine), (path.name, part)


@pytest.mark.needs_shared
def test_a_real_head_is_extracted(shared_data):
    scan = read_scan(sorted(shared_data.glob("whole_head/*"))[0])
    mask, extracted = find_brain(scan.voxels, scan.affine)
    assert not extracted and 1300 < mask.sum() * 8 / 1000 < 1900  # ml
    assert is_brain_extracted(scan.voxels * mask, scan.affine)


@pytest.mark.slow
@pytest.mark.needs_shared
def test_the_coarse_grid_finds_the_brain_that_deepbet_finds(shared_data):
    paths = [*shared_data.glob("whole_head/*"), *shared_data.glob("unseen_sites/*/*.nii.gz")]
    for path in (*paths, shared_data / "dicom_hanke_t1"):
        scan = read_scan(path)
        ours = extract_brain(scan.voxels, scan.affine)
        _, theirs, _ = BrainExtraction(no_gpu=True).run(nib.Nifti1Image(scan.voxels, scan.affine))
        theirs = np.asarray(nib.as_closest_canonical(theirs).dataobj) > 0
        ours = np.asarray(
            nib.as_closest_canonical(nib.Nifti1Image(ours * 1.0, scan.affine)).dataobj
        )
        assert 2 * (ours * theirs).sum() > 0.97 * (ours.sum() + theirs.sum()), path.name


@pytest.mark.slow
@pytest.mark.needs_shared
def test_extraction_does_not_depend_on_how_a_head_is_stored(shared_data):
    scan = nib.load(sorted(shared_data.glob("whole_head/*"))[0])
    mask = extract_brain(np.asarray(scan.dataobj, np.float32), scan.affine)
    canonical = nib.as_closest_canonical(scan)
    other = extract_brain(np.asarray(canonical.dataobj, np.float32), canonical.affine)
    back = nib.as_closest_canonical(nib.Nifti1Image(mask.astype(np.uint8), scan.affine))
    assert np.array_equal(np.asarray(back.dataobj) > 0, other)
