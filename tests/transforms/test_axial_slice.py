"""One slice out of a volume and back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd

from pathology_screen.errors import InputError
from pathology_screen.transforms import AxialSliced, tissue_extent


def volume_of(shape, affine=None, seed=0):
    values = np.random.default_rng(seed).uniform(0.5, 1, (1, *shape)).astype(np.float32)
    return MetaTensor(values, affine=np.eye(4) if affine is None else affine)


@given(st.tuples(*[st.integers(1, 12)] * 3), st.data())
def test_the_inverse_is_exact(shape, data):
    order = data.draw(st.permutations(range(3)))
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * data.draw(st.tuples(*[st.sampled_from([-0.7, 1.0, 3.3])] * 3))
    affine[:3, 3] = data.draw(st.tuples(*[st.floats(-150, 150)] * 3))
    volume = volume_of(shape, affine)
    transforms = Compose([Orientationd("image", "PLS", labels=None), AxialSliced("image", "middle")])
    item = transforms({"image": volume.clone()})
    axial = int(np.flatnonzero(np.abs(affine[2, :3]) > 0)[0])
    count = shape[axial]
    index = count // 2 if affine[2, axial] > 0 else count - 1 - count // 2
    expected = torch.zeros(1, *shape)
    kept = [slice(None)] * 4
    kept[1 + axial] = slice(index, index + 1)
    expected[tuple(kept)] = volume.as_tensor()[tuple(kept)]
    item["pred"] = item["image"].clone()
    back = Invertd("pred", transforms, orig_keys="image")(item)["pred"]
    assert torch.equal(back.as_tensor(), expected)
    assert torch.equal(back.affine, volume.affine) or np.allclose(back.affine, volume.affine, rtol=0, atol=1e-12)
    assert item["image"].meta["level"] == count // 2


def test_the_slice_has_the_affine_of_its_plane_and_knows_its_level():
    volume = volume_of((4, 5, 6), np.diag([-0.5, 2.0, 7.0, 1.0]))
    image = AxialSliced("image", 3)({"image": volume})["image"]
    assert image.shape == (1, 4, 5)
    assert torch.equal(image.as_tensor(), volume.as_tensor()[..., 3])
    assert image.affine.tolist() == [[0.5, 0, 0], [0, 2.0, 0], [0, 0, 1]]
    assert image.meta["level"] == 3
    assert volume.applied_operations == []
    assert volume.shape == (1, 4, 5, 6)


def test_rows_run_to_posterior_and_columns_to_the_left():
    voxels = np.ones((1, 6, 8, 4), np.float32)  # stored right -> left, posterior -> anterior, inferior -> superior
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    voxels[0, 0, 7, 2] = 9  # far right, most anterior
    transforms = Compose([Orientationd("image", "PLS", labels=None), AxialSliced("image", 2)])
    image = transforms({"image": MetaTensor(voxels, affine=affine)})["image"]
    assert image.shape == (1, 8, 6)
    assert image[0, 0, 0] == 9  # shown at the top left


def test_a_level_of_the_item_comes_first():
    volume = volume_of((3, 3, 9))
    taken = AxialSliced("image", "middle")({"image": volume, "level": 7})["image"]
    assert taken.meta["level"] == 7


def test_the_first_key_chooses_for_all():
    image, mask = torch.zeros(1, 6, 6, 10), torch.zeros(1, 6, 6, 10)
    image[..., 4:8] = 1
    mask[..., 6] = 1
    item = AxialSliced(("image", "mask"), 0.5)({"image": MetaTensor(image), "mask": MetaTensor(mask)})
    assert item["mask"].meta["level"] == 6
    assert item["mask"].sum() == 36


def test_extent_of_tissue_ignores_stray_bright_voxels(head):
    volume = head((90, 110, 80), np.diag([2.0, 2.0, 2.0, 1.0]), brain_only=True)
    first, stop = tissue_extent(volume)
    assert (stop - first) * 2 == pytest.approx(2 * 65, abs=8)
    volume[0, 0, 0] = volume[3, 3, 79] = 5000
    assert tissue_extent(volume) == (first, stop)


def test_a_fraction_counts_levels_with_tissue(head):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for shift in (-20.0, 0.0, 20.0):
        volume = head((90, 110, 100), affine, brain_only=True, offset=(0, 0, shift))
        image = AxialSliced("image", 0.5)({"image": MetaTensor(volume[None], affine=affine)})["image"]
        assert image.meta["level"] == pytest.approx(49.5 + shift / 2, abs=1)


@pytest.mark.parametrize(("level", "code"), [(10, "slice_out_of_range"), (-1, "slice_out_of_range"), (9, "no_tissue")])
def test_levels_without_image_or_tissue_are_refused(level, code):
    volume = torch.zeros(1, 6, 6, 10)
    volume[..., 2:8] = 1
    with pytest.raises(InputError) as refusal:
        AxialSliced("image", level)({"image": MetaTensor(volume)})
    assert refusal.value.code == code


@pytest.mark.parametrize("level", ["middle", 0.5, 3])
def test_an_empty_volume_is_refused(level):
    with pytest.raises(InputError) as refusal:
        AxialSliced("image", level)({"image": MetaTensor(torch.zeros(1, 6, 6, 10))})
    assert refusal.value.code == "no_tissue"
