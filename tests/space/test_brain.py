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

GRID = (100, 110, 90), np.diag([2.0, 2.0, 2.0, 1.0])


def test_negative_voxels_and_an_empty_image_are_background():
    assert tissue_mask(np.array([-5.0, 0.0, 1.0, 10.0])).tolist() == [False, False, True, True]
    for value in (0.0, -1.0):
        assert not tissue_mask(np.full((3, 3), value)).any()


@pytest.mark.parametrize("brain_only", [True, False])
@pytest.mark.parametrize(
    ("shape", "sizes", "background"),
    [
        (GRID[0], (2.0, 2.0, 2.0), 0.0),
        (GRID[0], (2.0, 2.0, 2.0), -500.0),
        ((130, 130, 32), (1.5, 1.5, 5.0), 0.0),
        ((60, 128, 128), (3.0, 1.7, 1.7), 0.0),  # sagittal
        ((120, 140, 5), (1.7, 1.7, 4.0), 0.0),  # slab
        ((176, 208, 1), (1.0, 1.0, 5.0), 0.0),
    ],
)
def test_a_skull_is_noticed_on_any_grid_and_background(shape, sizes, background, brain_only):
    affine = np.diag([*sizes, 1.0])
    volume = ellipsoids(shape, affine, brain_only=brain_only)
    volume[volume == 0] = background
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


def test_a_field_of_view_filled_with_noise_is_not_taken_for_a_brain():
    noise = np.random.default_rng(0).uniform(100, 1000, (120, 130, 20)).astype(np.float32)
    assert not is_brain_extracted(noise, np.diag([2.0, 2.0, 5.0, 1.0]))


def test_a_slab_of_a_whole_head_is_refused_not_scored():
    affine = np.diag([1.7, 1.7, 4.0, 1.0])
    with pytest.raises(InputError, match="brain_extraction_failed.*20 mm"):
        find_brain(ellipsoids((120, 140, 5), affine, brain_only=False), affine)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(ORDERS, SIGNS)
def test_the_mask_comes_back_in_the_stored_orientation(monkeypatch, order, signs):
    heads = []
    segment = "pathology_screen.space.brain._segment"
    monkeypatch.setattr(segment, lambda head: heads.append(head) or head > 100)
    affine = stored(order, signs, 4.0)
    shape = tuple((44, 50, 46)[axis] for axis in order)
    volume = ellipsoids(shape, affine, brain_only=True, offset=(8, -8, 4))
    assert np.array_equal(extract_brain(volume, affine), volume > 100)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))
    assert np.array_equal(heads[0], canonical.dataobj)


def test_what_is_no_brain_or_not_its_size_is_refused(monkeypatch):
    def bright(head):
        if not head.any():  # as deepbet fails
            raise ValueError("attempt to get argmax of an empty sequence")
        return head > 100

    monkeypatch.setattr("pathology_screen.space.brain._segment", bright)
    volume = np.zeros((120, 120, 120), np.float32)
    with pytest.raises(InputError, match="brain_extraction_failed"):
        extract_brain(volume, np.eye(4))
    volume[40:80, 40:80, 40:80] = 1000  # 64 ml or 22 l
    for size in (1.0, 7.0):
        with pytest.raises(InputError, match="brain_extraction_failed.*ml"):
            extract_brain(volume, np.diag([size, size, size, 1.0]))


@pytest.mark.slow
def test_deepbet_finds_no_brain_in_noise():
    noise = np.random.default_rng(0).uniform(0, 1, (60, 60, 60)).astype(np.float32)
    with pytest.raises(InputError, match="brain_extraction_failed"):
        extract_brain(noise, np.diag([4.0, 4.0, 4.0, 1.0]))


def test_the_brain_of_an_extracted_scan_is_its_tissue_without_holes():
    volume = ellipsoids(*GRID, brain_only=True)
    outline = volume > 0
    volume[48:53, 50:58, 40:46] = 0  # a ventricle
    mask, extracted = find_brain(volume, GRID[1])
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


def canonical(mask, affine):
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(mask * 1.0, affine)).dataobj) > 0


@pytest.mark.slow
@pytest.mark.needs_shared
def test_the_coarse_grid_finds_the_brain_that_deepbet_finds(shared_data):
    paths = [*shared_data.glob("whole_head/*"), *shared_data.glob("unseen_sites/*/*.nii.gz")]
    for path in (*paths, shared_data / "dicom_hanke_t1"):
        scan = read_scan(path)
        ours = canonical(extract_brain(scan.voxels, scan.affine), scan.affine)
        _, theirs, _ = BrainExtraction(no_gpu=True).run(nib.Nifti1Image(scan.voxels, scan.affine))
        theirs = np.asarray(nib.as_closest_canonical(theirs).dataobj) > 0
        assert 2 * (ours * theirs).sum() > 0.97 * (ours.sum() + theirs.sum()), path.name


@pytest.mark.slow
@pytest.mark.needs_shared
def test_extraction_does_not_depend_on_how_a_head_is_stored(shared_data):
    scan = nib.load(sorted(shared_data.glob("whole_head/*"))[0])
    mask = extract_brain(np.asarray(scan.dataobj, np.float32), scan.affine)
    turned = nib.as_closest_canonical(scan)
    other = extract_brain(np.asarray(turned.dataobj, np.float32), turned.affine)
    assert np.array_equal(canonical(mask, scan.affine), other)
