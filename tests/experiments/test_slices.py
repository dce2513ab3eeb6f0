"""The slices that an experiment looks at."""

import nibabel as nib
import numpy as np
import pytest
import torch

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.models import read_profile
from pathology_screen.experiments.slices import load_slices
from pathology_screen.transforms import RandomAffineBatch, eval_transforms

KINDS = ["hypointense lesion", "hyperintense lesion", "mass", "resection cavity", "enlarged ventricles"]


@pytest.fixture(scope="module")
def options():
    return read_profile().preprocessing_options


@pytest.fixture(scope="module")
def one_each(items, options):
    """The screened slice of each test scan."""
    return load_slices(items, options, 0.55)


@pytest.fixture(scope="module")
def every_level(items, options):
    return load_slices(items, options, 0.55, every=1)


def stored_level(item, level):
    """Index in the file of a level counted from inferior."""
    image = nib.load(item["image"])
    return level if nib.aff2axcodes(image.affine)[2] == "S" else image.shape[2] - 1 - level


def test_each_scan_gives_the_slice_that_is_screened(items, options, one_each):
    assert len(one_each) == len(items) == 8 and one_each.levels == (None,) * 8
    assert one_each.subjects == tuple(item["subject"] for item in items)
    assert one_each.pathology == ("healthy",) * 3 + tuple(item["pathology"] for item in items[3:])
    assert one_each.groups == ("normal",) * 3 + ("pathological",) * 5
    assert one_each.images.shape == one_each.masks.shape == (8, 1, 128, 128)
    assert one_each.images.min() == 0 and one_each.images.max() == 1
    transform = eval_transforms(level=0.55, **options)
    for image, item in zip(one_each.images, items):
        assert torch.equal(image, transform({"image": item["image"]})["image"].as_tensor())


def test_every_nth_level_is_taken_from_within_the_scan(items, options, every_level):
    assert every_level.levels == (0, 1, 2) * 8
    assert every_level.subjects == tuple(item["subject"] for item in items for _ in range(3))
    thinned = load_slices(items, options, 0.55, every=2)
    assert thinned.levels == (1,) * 8
    for a, b in zip(thinned.images, every_level.images[1::3]):
        assert torch.equal(a, b)
    assert load_slices(items, options, 0.55, every=3).levels == (1,) * 8


def extent(mask):
    """First and last row and column of a mask (H, W)."""
    return [end for places in np.nonzero(np.asarray(mask)) for end in (places.min(), places.max())]


def test_boxes_bound_the_mask_whatever_the_orientation_of_the_file(items, every_level):
    codes = {nib.aff2axcodes(nib.load(item["image"]).affine) for item in items}
    assert len(codes) == 4
    seen = 0
    for mask, boxes in zip(every_level.masks, every_level.boxes):
        if len(boxes):
            union = (boxes > 0.5).any(dim=0)
            assert not ((mask[0] > 0.5) & ~(boxes > 0.01).any(dim=0)).any()
            assert np.abs(np.subtract(extent(union), extent(mask[0] > 0.5))).max() <= 1
            seen += 1
    assert seen >= 10


def test_boxes_of_other_levels_are_left_out(items, every_level):
    for i, item in enumerate(items):
        for level in range(3):
            expected = [box["label"] for box in item["boxes"] if box["slice"] == stored_level(item, level)]
            assert list(every_level.box_labels[3 * i + level]) == expected
            assert every_level.boxes[3 * i + level].shape == (len(expected), 128, 128)


def test_masks_are_the_covered_share_of_each_pixel(items, every_level):
    assert every_level.masks.min() >= 0 and 0.99 < every_level.masks.max() < 1.001
    healthy = [i for i, name in enumerate(every_level.pathology) if name == "healthy"]
    assert not every_level.masks[healthy].any()
    for i, item in enumerate(items):
        label = nib.load(item["label"])
        for level in range(3):
            voxels = np.asarray(label.dataobj)[:, :, stored_level(item, level)].sum()
            area = voxels * np.prod(label.header.get_zooms()[:2]) / 1.625**2
            found = float(every_level.masks[3 * i + level].sum())
            assert found == pytest.approx(area, rel=0.02, abs=0.5)


def test_scans_without_annotations_have_none(items, options):
    bare = [{"image": item["image"], "subject": item["subject"]} for item in items[3:5]]
    slices = load_slices(bare, options, 0.55)
    assert not slices.masks.any() and slices.pathology == ("healthy",) * 2 and slices.groups == ("normal",) * 2
    assert slices.box_labels == ((), ()) and all(len(boxes) == 0 for boxes in slices.boxes + slices.other_boxes)


def test_other_boxes_stand_apart_and_groups_are_those_of_the_datalist(items, options):
    item = items[3]
    level = stored_level(item, 1)
    other = {"label": "artefact", "slice": level, "box": [60, 60, 20, 30]}
    slices = load_slices([item | {"other_boxes": [other], "group": "local"}], options, 0.55)
    assert slices.groups == ("local",) and "artefact" not in slices.box_labels[0]
    (found,) = slices.other_boxes[0]
    zooms = nib.load(item["image"]).header.get_zooms()
    assert float(found.sum()) == pytest.approx(600 * zooms[0] * zooms[1] / 1.625**2, rel=0.02)


def test_some_of_them(one_each):
    chosen = one_each[[6, 2]]
    assert torch.equal(chosen.images, one_each.images[[6, 2]]) and torch.equal(chosen.masks, one_each.masks[[6, 2]])
    assert chosen.subjects == (one_each.subjects[6], one_each.subjects[2]) and len(chosen.boxes) == 2
    assert torch.equal(chosen.boxes[0], one_each.boxes[6]) and chosen.box_labels[1] == ()
    assert one_each.healthy().pathology == ("healthy",) * 3
    with pytest.raises(ConfigError, match="no slice"):
        one_each[[]]
    with pytest.raises(ConfigError, match="no slice"):
        chosen[[0]].healthy()


def test_posed_slices_take_their_masks_along(one_each):
    posed = one_each.posed(torch.Generator().manual_seed(3))
    augmentation = RandomAffineBatch()
    parameters = augmentation.draw(8, torch.Generator().manual_seed(3))
    assert torch.equal(posed.images, augmentation.apply(one_each.images, parameters))
    assert torch.equal(posed.masks, augmentation.apply(one_each.masks, parameters))
    assert torch.equal(posed.images, one_each.posed(torch.Generator().manual_seed(3)).images)
    assert not torch.equal(posed.images, one_each.posed(torch.Generator().manual_seed(4)).images)
    assert posed.subjects == one_each.subjects and posed.box_labels == ((),) * 8
    assert all(boxes.shape == (0, 128, 128) for boxes in posed.boxes + posed.other_boxes)
    assert one_each.boxes[3].any()


def test_a_scan_that_is_refused_is_named(items, options, tmp_path):
    empty = str(tmp_path / "dark.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 5), np.float32), np.diag([5.0, 5, 5, 1])), empty)
    for every in (None, 1):
        with pytest.raises(ConfigError, match=r"dark\.nii\.gz; .*(constant_image|no_tissue)") as error:
            load_slices([*items[:1], {"image": empty, "subject": "x"}], options, 0.55, every)
        assert str(tmp_path) not in str(error.value)
    wrong = items[3] | {"boxes": [{"label": "mass", "slice": 99, "box": [1, 1, 1, 1]}]}
    with pytest.raises(ConfigError, match=r"sub-.*_T1w\.nii\.gz; the box .* correct the datalist"):
        load_slices([wrong], options, 0.55)
    with pytest.raises(ConfigError, match="no scan"):
        load_slices([], options, 0.55)
    with pytest.raises(ConfigError, match="no slice"):
        load_slices(items, options, 0.55, every=9)
