"""Every level of a scan."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Invertd

from pathology_screen.errors import ConfigError
from pathology_screen.transforms import axial_slices, each_level, eval_transforms, slices_to_volume, train_transforms

AFFINE = np.diag([-4.0, -4.0, 6.0, 1.0])


@pytest.fixture
def scan(head, nifti):
    volume = head((44, 50, 32), AFFINE, brain_only=True)
    return nifti(volume, AFFINE), volume


def test_every_level_with_tissue_is_a_slice_that_keeps_its_item(scan):
    path, volume = scan
    slices = axial_slices([{"image": path, "subject": "a"}, {"image": path, "subject": "b"}], train_transforms())
    area = (volume > 100).sum((0, 1))
    levels = np.flatnonzero(area > 0.05 * area.max()).tolist()
    assert [item["level"] for item in slices] == 2 * levels
    assert [item["subject"] for item in slices] == len(levels) * ["a"] + len(levels) * ["b"]


def test_without_levels_each_scan_is_one_slice(scan):
    path, _ = scan
    (one,) = axial_slices([{"image": path}], train_transforms(level=9), levels=None)
    assert torch.equal(one["image"], train_transforms()({"image": path, "level": 9})["image"])
    with pytest.raises(ConfigError, match="levels"):
        axial_slices([{"image": path}], train_transforms(), levels="some")
    with pytest.raises(ConfigError, match="no scan"):
        axial_slices([], train_transforms())


def test_what_else_an_item_holds_stays_behind_and_a_refusal_names_its_scan(scan, tmp_path):
    path, _ = scan
    items = [{"image": path, "subject": 7, "boxes": [1]}, {"image": path, "subject": "b", "age": None}]
    slices = axial_slices(items, train_transforms(), levels=None)
    assert [set(item) for item in slices] == [{"image", "subject"}] * 2
    assert slices[0]["subject"] == "7"
    with pytest.raises(RuntimeError) as error:
        axial_slices([{"image": str(tmp_path / "lost.nii.gz")}], train_transforms())
    assert error.value.__notes__ == ["while preparing lost.nii.gz"]


@pytest.mark.parametrize("level", [0.5, "middle"])
def test_each_level_equals_the_item_that_names_it(scan, level):
    path, _ = scan
    transforms = eval_transforms(level=level, brain_extraction="never")
    found = list(each_level(transforms, {"image": path}))
    expected = [transforms({"image": path, "level": one["level"]}) for one in found]
    assert len(found) == len(expected) > 15
    for one, other in zip(found, expected):
        assert torch.equal(one["image"].as_tensor(), other["image"].as_tensor())
        assert one["image"].meta["level"] == other["image"].meta["level"] == one["level"]


def test_the_slices_of_all_levels_put_the_brain_together_again(scan):
    path, volume = scan
    transforms = eval_transforms(brain_extraction="never")
    invert = Invertd("pred", transforms, orig_keys="image", nearest_interp=False)
    whole = torch.zeros(1, *volume.shape)
    for item in each_level(transforms, {"image": path}):
        item["pred"] = item["image"].clone()
        whole += invert(item)["pred"].as_tensor()
    shown = np.asarray(whole[0])
    inside = volume > 500
    assert np.corrcoef(shown[inside], volume[inside])[0, 1] > 0.9
    assert shown[volume == 0].mean() < 0.01


@pytest.mark.parametrize("levels", ["all", None])
def test_masks_come_along_where_an_item_has_them(scan, nifti, levels):
    path, volume = scan
    lesion = np.zeros(volume.shape, np.uint8)
    lesion[20:26, 20:30, 16:18] = 1
    mask = nifti(lesion, AFFINE, "mask.nii.gz")
    items = [{"image": path, "label": mask, "subject": "a"}, {"image": path, "subject": "b"}]
    transform = eval_transforms(mask_keys="label", level=16, brain_extraction="never")
    slices = axial_slices(items, transform, levels, also=("label", "unheard"))
    with_mask = [item for item in slices if "label" in item]
    assert {item["subject"] for item in with_mask} == {"a"} and {item["subject"] for item in slices} == {"a", "b"}
    found = [item["level"] for item in with_mask if item["label"].max() > 0.9] if levels else [16]
    assert found == ([16, 17] if levels else [16])
    one = transform({"image": path, "label": mask})
    (same,) = [item for item in with_mask if item.get("level", 16) == 16]
    assert torch.equal(same["label"].as_tensor(), one["label"].as_tensor())
    assert not any("label" in item for item in axial_slices(items, transform, levels))


def test_every_slice_keeps_what_is_to_be_kept_of_its_item_as_text(scan):
    path, _ = scan
    items = [{"image": path, "subject": 7, "group": "normal"}, {"image": path, "pathology": "mass"}]
    slices = axial_slices(items, train_transforms(), kept=("subject", "group", "pathology"))
    first, second = slices[0], slices[len(slices) - 1]
    assert first.keys() == {"image", "level", "subject", "group"} and first["subject"] == "7"
    assert second.keys() == {"image", "level", "pathology"} and second["pathology"] == "mass"


@pytest.mark.parametrize("codes", ["LAS", "PSR", "RIA"])
def test_slices_go_back_to_the_voxels_that_they_came_from(scan, codes, nifti):
    """Together as one by one with MONAI's Invertd, whichever way the volume is stored."""
    _, volume = scan
    stored = nib.as_closest_canonical(nib.Nifti1Image(volume, AFFINE))
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(stored.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    stored = stored.as_reoriented(turn)
    transforms = eval_transforms(brain_extraction="never")
    items = list(each_level(transforms, {"image": nifti(np.asarray(stored.dataobj), stored.affine)}))[::4]
    values = [item["image"].as_tensor() * (1 + item["level"]) for item in items]
    together = slices_to_volume(transforms, [item["image"] for item in items], values)
    assert together.shape[1:] == stored.shape and np.allclose(together.affine, stored.affine)
    invert = Invertd("values", transforms, orig_keys="image", nearest_interp=False)
    apart = sum(invert(item | {"values": item["image"] * (1 + item["level"])})["values"].as_tensor() for item in items)
    assert torch.allclose(together.as_tensor(), apart, atol=1e-4)
