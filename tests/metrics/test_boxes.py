"""From a box in a table of annotations to masks on the grid, and back."""

import nibabel as nib
import numpy as np
import pytest
import torch
from boxes import Box, box_masks
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch.nn import functional as F

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.metrics import LocalizationMetric, healthy_tissue
from pathology_screen.transforms import ResampleToGridd, eval_transforms

PADDED = ResampleToGridd("mask", millimetres=None, antialias=False)


def on_padded_grid(masks, pixel=1.0):
    """Masks (K, H, W) of square pixels in mm on the paper's grid, as a MetaTensor (K, 128, 128)."""
    affine = torch.diag(torch.tensor([pixel, pixel, 1], dtype=torch.float64))
    return PADDED({"mask": MetaTensor(masks, affine=affine)})["mask"]


def test_healthy_tissue_is_tissue_outside_every_box():
    image = np.zeros((12, 12))
    image[2:10, 2:10] = 100
    image[5:7, 5:7] = 1  # dark ventricles
    boxes = box_masks([(0, 0, 4, 4), (8, 8, 4, 4)], image.shape)
    healthy = healthy_tissue(image, boxes)
    assert healthy.shape == (1, 12, 12)
    assert healthy.sum() == 64 - 4 - 4
    assert healthy[0, 5:7, 5:7].all()
    assert not healthy[0, :2].any()
    assert healthy_tissue(image, boxes[:0]).sum() == 64
    with pytest.raises(InputError, match="no_tissue"):
        healthy_tissue(np.zeros((12, 12)), boxes)
    with pytest.raises(ConfigError, match="do not lie on"):
        healthy_tissue(image[:6], boxes)


@pytest.mark.parametrize("shape", [(320, 320), (320, 260), (200, 256)])
def test_the_grid_is_the_papers_pad_to_square_and_bilinear_resize(shape):
    masks = box_masks([(100, 90, 31, 47), (10, 150, 5, 3)], shape)
    side = max(shape)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    square = F.pad(torch.from_numpy(masks), (left, side - shape[1] - left, top, side - shape[0] - top))
    expected = F.interpolate(square[None], size=(128, 128), mode="bilinear", align_corners=False)[0]
    found = on_padded_grid(masks).as_tensor()
    assert torch.allclose(found, expected, atol=1e-5)
    soft = (found > 1e-3) & (found < 1 - 1e-3)
    assert soft.any() or shape == (200, 256)  # every second pixel there falls between two


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_box_survives_flip_pad_and_resize_and_back(data):
    shape = data.draw(st.tuples(st.integers(128, 320), st.integers(128, 320)))
    width, height = (data.draw(st.integers(12, 60)) for _ in range(2))
    box = Box(data.draw(st.integers(0, shape[1] - width)), data.draw(st.integers(0, shape[0] - height)), width, height)
    stored = box_masks([box.flipped(shape[0])], shape)
    shown = np.ascontiguousarray(stored[:, ::-1])  # as it is displayed, where the table's box lies
    grid = on_padded_grid(shown)
    side = max(shape)
    pixel = side / 128

    weights = np.asarray(grid[0], float)
    assert weights.sum() * pixel**2 == pytest.approx(width * height, rel=0.3)
    for axis, (start, length) in enumerate([(box.y, box.height), (box.x, box.width)]):
        middle = start + length / 2 + (side - shape[axis]) / 2  # in the padded slice, from its edge
        found = (weights.sum(1 - axis) @ (np.arange(128) + 0.5)) / weights.sum()
        assert abs(found - middle / pixel) < 0.5

    back = np.asarray(PADDED.inverse({"mask": grid})["mask"][0]) > 0.5
    assert back.shape == shape
    for axis, (start, length) in enumerate([(box.y, box.height), (box.x, box.width)]):
        lit = np.flatnonzero(back.any(1 - axis))
        assert abs(lit[0] - start) <= pixel
        assert abs(lit[-1] + 1 - start - length) <= pixel


def test_resampling_leaves_no_pixels_that_the_box_does_not_cover():
    """Pixels of the slice fall exactly on those of the grid, but for rounding, which leaves traces of neighbours."""
    grid = on_padded_grid(box_masks([(40, 41, 10, 20)], (128, 100)), pixel=1 / 3)
    assert (grid > 0).sum() > 200
    rows = LocalizationMetric(0, ["mass"])(
        torch.zeros(1, 1, 128, 128), [{"boxes": grid, "healthy": torch.ones(1, 128, 128), "labels": ["mass"]}]
    )
    assert rows[0, 1] == 200


def test_a_tiny_box_can_vanish_and_is_counted_as_such():
    grid = on_padded_grid(box_masks([(120, 150, 1, 1), (121, 151, 1, 1)], (384, 384)))
    metric = LocalizationMetric(0.5, ["lesion"])
    healthy = torch.ones(1, 128, 128)
    metric(torch.ones(1, 1, 128, 128), [{"boxes": grid, "healthy": healthy, "labels": ["lesion", "lesion"]}])
    result = metric.aggregate()
    assert (result["n"], result["empty"], result["detected"]) == (2, 1, 1)


@pytest.mark.parametrize("rows_reversed", [True, False])
def test_masks_go_with_their_image_through_the_transforms(tmp_path, rows_reversed):
    """A whole-head slice as NIfTI, its boxes as one 4-D NIfTI: the boxes land where the image shows them bright."""
    shape, boxes = (160, 140), [Box(30, 40, 25, 35), Box(90, 100, 20, 14)]
    image = np.full(shape, 100.0)
    image[:8] = image[-8:] = image[:, :8] = image[:, -8:] = 0
    masks = box_masks(boxes, shape)
    healthy = healthy_tissue(image, masks)
    image[masks.any(0)] = 200
    # rows to posterior, columns to the patient's left, as displayed; or with the rows in reverse
    affine = np.array([[0, -1.5, 0, 0], [-1.5, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1.0]])
    if rows_reversed:
        affine[1, 0] *= -1
    for name, slices in {"image": image[None], "boxes": masks, "healthy": healthy}.items():
        stored = slices[:, ::-1] if rows_reversed else slices
        volume = np.moveaxis(stored, 0, -1)[:, :, None]  # (H, W, 1, K)
        volume = np.repeat(volume[..., 0] if name == "image" else volume, 3, axis=2).astype(np.float32)
        nib.save(nib.Nifti1Image(volume, affine), tmp_path / f"{name}.nii.gz")
    transforms = eval_transforms(
        mask_keys=("boxes", "healthy"), grid="padded", domain="whole_head", level="middle", percentile=99.5
    )
    item = transforms({name: str(tmp_path / f"{name}.nii.gz") for name in ("image", "boxes", "healthy")})
    assert item["boxes"].shape == (2, 128, 128)
    assert item["healthy"].shape == item["image"].shape == (1, 128, 128)
    expected = on_padded_grid(masks).as_tensor()
    assert torch.allclose(item["boxes"].as_tensor(), expected, atol=1e-4)
    covered = item["boxes"].as_tensor() > 0.99
    assert (item["image"].as_tensor()[covered.any(0, keepdim=True)] > 0.99).all()
    assert not ((item["healthy"] > 0.5).as_tensor() & covered).any()
    bright = item["image"].as_tensor()
    item["labels"] = ["mass", "edema"]
    metric = LocalizationMetric(0.75, ["edema", "mass"])
    metric([bright], [item])
    result = metric.aggregate()
    assert result["detected"] == 2
    assert result["box_fraction"] > 0.85
    assert result["healthy_fraction"] < 0.02
