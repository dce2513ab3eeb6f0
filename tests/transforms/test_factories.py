"""From a path to the network grid and back to the scan."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import Invertd
from scipy.ndimage import gaussian_filter

from pathology_screen.errors import ConfigError, find_refusal
from pathology_screen.transforms import LoadScand, eval_transforms, tissue_mask, train_transforms
from pathology_screen.transforms.factories import MaskBraind

AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])


@pytest.mark.parametrize("grid", ["isotropic", "padded"])
def test_the_network_sees_a_slice_between_zero_and_one(head, nifti, grid):
    path = nifti(head((90, 100, 45), AFFINE, brain_only=True), AFFINE)
    image = eval_transforms(grid=grid, size=96)({"image": path})["image"]
    assert image.shape == (1, 96, 96)
    assert image.dtype == torch.float32
    assert image.min() == 0
    assert 0.99 < image.max() <= 1
    plain = train_transforms(grid=grid, size=96)({"image": path})["image"]
    assert type(plain) is torch.Tensor
    assert torch.equal(plain, image.as_tensor())


@pytest.mark.parametrize("grid", ["isotropic", "padded"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mark_stays_where_it_was_in_any_stored_orientation(head, metatensor, grid, data):
    order = data.draw(st.permutations(range(3)))
    signs = data.draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    sizes = np.array(data.draw(st.tuples(*[st.floats(1.5, 6)] * 3)))
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * sizes
    affine[:3, 3] = data.draw(st.tuples(*[st.floats(-100, 100)] * 3))
    shape = tuple(int(data.draw(st.floats(100, 200)) / side) for side in sizes)
    volume = head(shape, affine, brain_only=True)
    transforms = eval_transforms(grid=grid, brain_extraction="never")
    item = transforms({"image": metatensor(volume, affine)}, start=1)  # all but the loading
    shown = item["image"]
    row, column = (data.draw(st.integers(40, 88)) for _ in range(2))
    mark = torch.zeros_like(shown)
    half = int(np.ceil(sizes.max() / float(shown.affine[0, 0])))  # wide enough for the largest voxel
    mark[0, row - half : row + half + 1, column - half : column + half + 1] = 1
    item["pred"] = mark
    back = Invertd("pred", transforms, orig_keys="image", nearest_interp=False)(item)["pred"]
    assert back.shape == (1, *shape)
    assert np.allclose(back.affine, affine)

    # where the mark should be, by the grid's own definition: mm from the middle of the tissue or of the slice
    weights = np.asarray(back[0], float)
    found = (np.stack(np.nonzero(weights), -1) * weights[weights > 0][:, None]).sum(0) / weights.sum()
    axial = int(np.flatnonzero(affine[2, :3])[0])
    level = shown.meta["level"] if affine[2, axial] > 0 else shape[axial] - 1 - shown.meta["level"]
    assert found[axial] == pytest.approx(level)
    plane = np.take(volume, level, axial)
    within = [axis for axis in range(3) if axis != axial]
    if grid == "isotropic":
        step = 208 / 128
        lit = plane > 0.1 * np.percentile(plane[plane > 0], 99)
        middle = [(np.flatnonzero(lit.any(1 - k))[[0, -1]]).mean() for k in range(2)]
    else:
        step = max(shape[axis] * sizes[axis] for axis in within) / 128
        middle = [(shape[axis] - 1) / 2 for axis in within]
    for k, axis in enumerate(within):
        patient = int(np.flatnonzero(affine[:3, axis])[0])  # 0: the axis runs right-left, 1: anterior-posterior
        display = (column if patient == 0 else row) - 63.5  # to the patient's left, to posterior
        towards = -np.sign(affine[patient, axis])  # display coordinates fall as RAS+ rises
        expected = middle[k] + towards * display * step / sizes[axis]
        assert abs(found[axis] - expected) * sizes[axis] < 0.6 * max(step, sizes[axis])


def test_what_was_loaded_comes_back_smooth_and_in_place(head, nifti):
    volume = gaussian_filter(head((90, 110, 45), AFFINE, brain_only=True), (4, 4, 0))
    path = nifti(volume, AFFINE)
    transforms = eval_transforms(level=22)
    item = transforms({"image": path})
    item["pred"] = item["image"].clone()
    back = np.asarray(Invertd("pred", transforms, orig_keys="image", nearest_interp=False)(item)["pred"][0])
    plane = volume[..., 22]
    scale = np.percentile(plane[tissue_mask(plane)], 98)
    expected = np.clip(plane / scale, 0, 1)
    assert np.abs(back[..., 22] - expected).max() < 0.05
    assert np.abs(back[..., 22] - expected).mean() < 0.005
    assert not back[..., :22].any()
    assert not back[..., 23:].any()


@pytest.mark.parametrize("grid", ["isotropic", "padded"])
def test_a_mask_goes_the_way_of_its_image(head, nifti, grid):
    volume = head((90, 110, 45), AFFINE, brain_only=True)
    white = (volume > 800).astype(np.uint8)
    item = {"image": nifti(volume, AFFINE), "mask": nifti(white, AFFINE, "mask.nii.gz")}
    transforms = eval_transforms(mask_keys="mask", grid=grid)
    shown = transforms(item)
    assert shown["mask"].shape == shown["image"].shape
    image, mask = np.asarray(shown["image"][0]), np.asarray(shown["mask"][0])
    assert mask.min() == 0
    assert mask.max() == pytest.approx(1, abs=1e-3)
    assert ((mask > 0.5) == (image > 0.8)).mean() > 0.99
    del item["mask"]
    assert torch.equal(transforms(item)["image"].as_tensor(), shown["image"].as_tensor())


def test_a_mask_of_another_image_is_refused(head, nifti):
    volume = head((90, 110, 45), AFFINE, brain_only=True)
    moved = AFFINE.copy()
    moved[0, 3] += 2
    item = {"image": nifti(volume, AFFINE), "mask": nifti(volume, moved, "mask.nii.gz")}
    with pytest.raises(RuntimeError) as error:
        eval_transforms(mask_keys="mask")(item)
    assert isinstance(error.value.__cause__, ConfigError)


def test_a_batch_of_different_scans_can_be_taken_apart_and_inverted(head, nifti):
    other = np.array([[0, 0, 2.5, 0], [3.0, 0, 0, 0], [0, -2.0, 0, 0], [0, 0, 0, 1.0]])
    shapes = {"a.nii.gz": ((90, 100, 45), AFFINE), "b.nii": ((64, 80, 70), other), "c.nii": ((80, 90, 40), AFFINE)}
    items = [
        {"image": nifti(head(shape, affine, brain_only=True), affine, name)} for name, (shape, affine) in shapes.items()
    ]
    transforms = eval_transforms()
    batch = next(iter(DataLoader(Dataset(items, transforms), batch_size=3)))
    batch["pred"] = 1 - batch["image"]
    invert = Invertd("pred", transforms, orig_keys="image", nearest_interp=False)
    for item, (shape, affine) in zip(decollate_batch(batch), shapes.values()):
        back = invert(item)["pred"]
        assert back.shape == (1, *shape)
        assert np.allclose(back.affine, affine)
        assert item["image"].meta["volume_shape"] == list(shape)
        assert np.array_equal(item["image"].meta["volume_affine"], affine)


def test_only_one_slice_is_read_where_that_suffices(head, nifti):
    path = nifti(head((90, 110, 45), AFFINE, brain_only=True), AFFINE)
    part = eval_transforms(level="middle", brain_extraction="never")({"image": path})["image"]
    whole = eval_transforms(level="middle", brain_extraction="always").transforms[0]
    assert isinstance(whole, LoadScand)
    assert whole.level is None
    assert torch.allclose(part.as_tensor(), eval_transforms(level=22)({"image": path})["image"].as_tensor())
    assert part.meta["volume_shape"] == [90, 110, 45]


def test_whole_heads_are_left_as_they_are_in_their_own_domain(head, nifti):
    path = nifti(head((110, 120, 50), AFFINE, brain_only=False), AFFINE)
    image = eval_transforms(grid="padded", domain="whole_head", level="middle")({"image": path})["image"]
    scalp = np.asarray(image[0])[:, 60:68].max(1)
    assert (np.diff(np.flatnonzero(scalp < 0.2)) > 1).sum() >= 2  # dark: air, bone, bone, air
    steps = eval_transforms(domain="whole_head").transforms
    assert next(step for step in steps if isinstance(step, MaskBraind)).when == "never"


def test_it_can_be_sent_to_worker_processes(head, nifti):
    path = nifti(head((90, 110, 45), AFFINE, brain_only=True), AFFINE)
    for transforms in (eval_transforms(), train_transforms(grid="padded")):
        copy = pickle.loads(pickle.dumps(transforms))
        found, expected = (torch.as_tensor(step({"image": path})["image"]) for step in (copy, transforms))
        assert torch.equal(found, expected)


def test_a_refusal_can_be_found_behind_monais_error(nifti):
    path = nifti(np.zeros((9, 9, 9), np.float32) - np.arange(9, dtype=np.float32), AFFINE)
    with pytest.raises(RuntimeError) as error:
        eval_transforms(brain_extraction="never")({"image": path})
    assert find_refusal(error.value).code == "no_tissue"


@pytest.mark.parametrize("wrong", [{"grid": "round"}, {"domain": "heads"}, {"brain_extraction": "maybe"}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ConfigError):
        eval_transforms(**wrong)


@pytest.mark.needs_shared
def test_real_brains_have_similar_sizes_on_the_grid(shared_data):
    for path in [shared_data / "oasis/sub-N000_T1w.nii.gz", *sorted(shared_data.glob("glioma/*T1w*"))]:
        image = np.asarray(eval_transforms()({"image": str(path)})["image"][0])
        rows, columns = (np.flatnonzero((image > 0.1).any(axis)) for axis in (1, 0))
        assert 90 <= np.ptp(rows) <= 115, path.name
        assert 72 <= np.ptp(columns) <= 95, path.name
        assert abs(rows.mean() - 63.5) < 5
        assert abs(columns.mean() - 63.5) < 5


@pytest.mark.needs_shared
def test_nifti_and_dicom_scans_fit_in_one_batch(shared_data):
    items = [{"image": str(shared_data / name)} for name in ("oasis/sub-N000_T1w.nii.gz", "dicom_hanke_t1")]
    transforms = eval_transforms(grid="padded", domain="whole_head", level="middle")
    batch = next(iter(DataLoader(Dataset(items, transforms), batch_size=2)))
    sources = [item["image"].meta["source"] for item in decollate_batch(batch)]
    assert '"nifti"' in sources[0]
    assert '"dicom"' in sources[1]
