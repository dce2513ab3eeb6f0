"""Annotated boxes from voxels to the grid of the network."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from pathology_screen.transforms.boxes import BoxesOnSliced, DrawBoxesd

from pathology_screen.errors import ConfigError
from pathology_screen.transforms import eval_transforms

AFFINE = np.diag([2.0, 2.5, 5.0, 1.0])  # mm, RAS
SHAPE = (80, 70, 6)


@pytest.fixture
def scan(head):
    return head(SHAPE, AFFINE, brain_only=True)


def box(x, y, width, height, level, label="mass"):
    return {"label": label, "slice": level, "box": [x, y, width, height]}


class TestDrawBoxesd:
    @pytest.fixture
    def loaded(self):
        return MetaTensor(torch.ones(1, 8, 9, 4), affine=torch.eye(4))

    def test_a_box_is_its_voxels(self, loaded):
        boxes = [box(1, 2, 3, 4, 2), box(0, 0, 8, 9, 3, "edema")]
        drawn = DrawBoxesd()({"image": loaded, "boxes": boxes, "other_boxes": [box(7, 8, 1, 1, 0)]})
        masks = drawn["boxes_masks"]
        assert masks.shape == (2, 8, 9, 4) and drawn["boxes_labels"] == ["mass", "edema"]
        expected = torch.zeros(8, 9, 4)
        expected[1:4, 2:6, 2] = 1
        assert torch.equal(masks[0].as_tensor(), expected)
        assert masks[1].sum() == masks[1, :, :, 3].sum() == 72
        assert drawn["other_boxes_masks"].nonzero().tolist() == [[0, 7, 8, 0]]

    @pytest.mark.parametrize("boxes", [None, []])
    def test_an_item_without_boxes_is_passed_on(self, loaded, boxes):
        item = {"image": loaded, "boxes": boxes}
        assert DrawBoxesd()(item) == item and DrawBoxesd()({"image": loaded}).keys() == {"image"}

    @pytest.mark.parametrize(
        "wrong",
        [
            box(-1, 2, 3, 4, 2),
            box(1, 2, 8, 4, 2),
            box(1, 2, 3, 8, 2),
            box(1, 2, 3, 4, 4),
            box(1, 2, 3, 4, -1),
            box(1, 2, 0, 4, 2),
            box(1, 2.5, 3, 4, 2),
            {"label": "mass", "box": [1, 2, 3, 4]},
            {"label": "mass", "slice": 2, "box": [1, 2, 3]},
            {"slice": 2, "box": [1, 2, 3, 4]},
        ],
    )
    def test_what_is_no_part_of_the_scan_is_refused(self, loaded, wrong):
        with pytest.raises(ConfigError, match="correct the datalist"):
            DrawBoxesd()({"image": loaded, "boxes": [wrong]})


def test_boxes_of_other_slices_are_left_out():
    masks = torch.zeros(3, 5, 5)
    masks[0, 1, 1] = masks[2, 3, 3] = 1
    item = {"boxes_masks": masks, "boxes_labels": ["a", "b", "c"], "other_boxes_masks": masks[1:2]}
    kept = BoxesOnSliced()(item | {"other_boxes_labels": ["d"], "image": 0})
    assert kept.keys() == {"boxes_masks", "boxes_labels", "image"}
    assert kept["boxes_labels"] == ["a", "c"] and torch.equal(kept["boxes_masks"], masks[[0, 2]])


def stored(volume, codes, box):
    """A volume and a box of it as they are in a file of another orientation."""
    image = nib.Nifti1Image(volume, AFFINE)
    mask = np.zeros(volume.shape, np.uint8)
    (x, y, width, height), level = box["box"], box["slice"]
    mask[x : x + width, y : y + height, level] = 1
    turn = ornt_transform(io_orientation(AFFINE), axcodes2ornt(codes))
    image, mask = image.as_reoriented(turn), nib.Nifti1Image(mask, AFFINE).as_reoriented(turn)
    i, j, k = (np.unique(places) for places in np.nonzero(mask.get_fdata()))
    return image, {**box, "slice": int(k[0]), "box": [int(i[0]), int(j[0]), len(i), len(j)]}


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "RAI", "ARS", "PLI"])
@pytest.mark.parametrize("grid", ["isotropic", "padded"])
def test_a_box_lies_on_the_same_pixels_however_the_scan_is_stored(scan, nifti, codes, grid):
    """On the grid, rows run to posterior and columns to the left."""
    volume = scan.copy()
    volume[50:56, 40:52, 3] = 100  # right of and in front of the middle
    (image, placed), (healthy, _) = (stored(voxels, codes, box(50, 40, 6, 12, 3)) for voxels in (volume, scan))
    _, elsewhere = stored(scan, codes, box(20, 20, 5, 5, 2, "edema"))
    transforms = eval_transforms(grid=grid, level=3, boxes=True, brain_extraction="never")
    path, other = (nifti(x.get_fdata(dtype=np.float32), x.affine, f"{x is image}.nii.gz") for x in (image, healthy))
    result = transforms({"image": path, "boxes": [elsewhere, placed]})
    assert result["boxes_labels"] == ["mass"] and result["boxes_masks"].shape == (1, 128, 128)
    dark = (transforms({"image": other})["image"] - result["image"])[0] > 0.4
    rows, columns = (torch.unique(places) for places in torch.where(result["boxes_masks"][0] > 0.5))
    expected_rows, expected_columns = (torch.unique(places) for places in torch.where(dark))
    for found, expected in ((rows, expected_rows), (columns, expected_columns)):
        assert abs(found[0] - expected[0]) <= 1 and abs(found[-1] - expected[-1]) <= 1
    assert rows.max() < 64 and columns.max() < 64


def test_a_box_too_small_for_the_grid_stays_on_its_slice(scan, nifti):
    """The paper's resize takes every fifth pixel of a wide slice."""
    wide = np.repeat(np.repeat(scan, 8, axis=0), 8, axis=1)
    boxes = [box(x, 300, 1, 1, 3) for x in range(300, 306)]
    transforms = eval_transforms(grid="padded", level=3, boxes=True, brain_extraction="never")
    result = transforms({"image": nifti(wide, AFFINE), "boxes": [*boxes, box(300, 300, 40, 40, 2)]})
    assert result["boxes_masks"].shape == (6, 128, 128)
    assert not result["boxes_masks"].flatten(1).any(dim=1).all()


def test_without_boxes_nothing_changes(scan, nifti):
    path = nifti(scan, AFFINE)
    plain, with_boxes = (
        eval_transforms(level=3, boxes=boxes, brain_extraction="never")({"image": path, "boxes": []})
        for boxes in (False, True)
    )
    assert torch.equal(plain["image"].as_tensor(), with_boxes["image"].as_tensor())
    assert with_boxes.keys() == {"image", "boxes"}
