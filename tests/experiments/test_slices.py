"""The slices that an experiment looks at."""

import nibabel as nib
import numpy as np
import pytest
import torch
from slice_cohort import FINDINGS

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.models import read_profile
from pathology_screen.experiments.slices import load_slices


@pytest.fixture(scope="module")
def preprocessing():
    return read_profile().preprocessing


@pytest.fixture(scope="module")
def slices(items, preprocessing):
    return load_slices(items, preprocessing)


def test_each_scan_gives_the_slice_that_is_screened(items, preprocessing, slices):
    assert len(slices) == len(items) == 8
    assert slices.subjects == tuple(item["subject"] for item in items)
    assert slices.pathology == ("healthy",) * 3 + tuple(FINDINGS)
    assert slices.groups == ("normal",) * 3 + ("pathological",) * 5
    assert slices.images.shape == slices.masks.shape == (8, 1, 128, 128)
    assert slices.images.min() == 0 and slices.images.max() == 1
    for image, item in zip(slices.images, items):
        assert torch.equal(image, preprocessing(item)["image"].as_tensor())


def extent(mask):
    """First and last row and column of a mask (H, W)."""
    return [end for places in np.nonzero(np.asarray(mask)) for end in (places.min(), places.max())]


def test_boxes_bound_the_mask_whatever_the_orientation_of_the_file(items, slices):
    codes = {nib.aff2axcodes(nib.load(item["image"]).affine) for item in items}
    assert len(codes) == 4
    for mask, boxes, labels, finding in zip(
        slices.masks[3:], slices.boxes[3:], slices.box_labels[3:], FINDINGS
    ):
        assert labels == (finding,) and boxes.shape == (1, 128, 128)
        assert np.abs(np.subtract(extent(boxes[0] > 0.5), extent(mask[0] > 0.5))).max() <= 1


def test_masks_are_the_covered_share_of_each_pixel_and_lie_on_the_finding(items, slices):
    assert (
        slices.masks.min() >= 0 and 0.99 < slices.masks.max() < 1.001 and not slices.masks[:3].any()
    )
    for item, image, mask in list(zip(items, slices.images, slices.masks))[3:]:
        voxels = nib.load(item["label"]).get_fdata().sum()
        assert float(mask.sum()) == pytest.approx(voxels * (128 / 116) ** 2, rel=0.03)
        inside = image[mask > 0.99]
        assert (
            inside.std() < 0.1
        )  # nothing but the finding, which is of one intensity and a little noise


def test_scans_without_annotations_have_none(items, preprocessing):
    bare = [
        {name: item[name] for name in ("image", "subject", "axial_slice")} for item in items[3:5]
    ]
    slices = load_slices(bare, preprocessing)
    assert (
        not slices.masks.any()
        and slices.pathology == ("healthy",) * 2
        and slices.groups == ("normal",) * 2
    )
    assert slices.box_labels == ((), ()) and all(
        len(boxes) == 0 for boxes in slices.boxes + slices.other_boxes
    )


def test_other_boxes_stand_apart_and_groups_are_those_of_the_datalist(items, preprocessing):
    other = {"label": "artefact", "slice": 0, "box": [60, 60, 20, 30]}
    slices = load_slices([items[3] | {"other_boxes": [other], "group": "local"}], preprocessing)
    assert slices.groups == ("local",) and slices.box_labels[0] == ("lesion",)
    (found,) = slices.other_boxes[0]
    assert float(found.sum()) == pytest.approx(600 * (128 / 116) ** 2, rel=0.02)


def test_some_of_them(slices):
    chosen = slices[[6, 2]]
    assert torch.equal(chosen.images, slices.images[[6, 2]]) and torch.equal(
        chosen.masks, slices.masks[[6, 2]]
    )
    assert chosen.subjects == (slices.subjects[6], slices.subjects[2]) and len(chosen.boxes) == 2
    assert torch.equal(chosen.boxes[0], slices.boxes[6]) and chosen.box_labels[1] == ()
    assert slices.healthy().pathology == ("healthy",) * 3
    with pytest.raises(ConfigError, match="no slice"):
        slices[[]]
    with pytest.raises(ConfigError, match="no slice"):
        chosen[[0]].healthy()


def test_a_scan_that_is_refused_is_named(items, preprocessing, tmp_path):
    empty = str(tmp_path / "dark.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 1), np.float32), np.diag([5.0, 5, 5, 1])), empty)
    dark = {"image": empty, "subject": "x", "axial_slice": True}
    with pytest.raises(ConfigError, match=r"dark\.nii\.gz; .*(constant_image|no_tissue)") as error:
        load_slices([*items[:1], dark], preprocessing)
    assert str(tmp_path) not in str(error.value)
    wrong = items[3] | {"boxes": [{"label": "mass", "slice": 99, "box": [1, 1, 1, 1]}]}
    with pytest.raises(ConfigError, match=r"sub-.*_T1w\.nii\.gz; the box .* correct the datalist"):
        load_slices([wrong], preprocessing)
    with pytest.raises(ConfigError, match="no scan"):
        load_slices([], preprocessing)
