"""The slices that an experiment looks at, and their annotations."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from slice_cohort import FINDINGS

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.slices import load_slices


@pytest.fixture(scope="session")
def items(datalist):
    """The test section as it stands in the datalist, with the paths of its files."""
    section = json.loads(datalist.read_text())["test"]
    for item in section:
        item |= {key: str(datalist.parent / item[key]) for key in item.keys() & {"image", "label"}}
    return section


def test_each_scan_gives_the_slice_that_is_screened(items, profile, slices):
    assert len(slices) == len(items) == slices.people == 8
    assert slices.subjects.tolist() == [item["subject"] for item in items]
    assert slices.pathology.tolist() == ["healthy"] * 3 + list(FINDINGS)
    assert slices.groups.tolist() == ["normal"] * 3 + ["pathological"] * 5
    assert slices.images.shape == slices.masks.shape == (8, 1, 128, 128)
    assert slices.images.min() == 0 and slices.images.max() == 1
    for image, item in zip(slices.images, items):
        assert torch.equal(image, profile.preprocessing(item)["image"].as_tensor())


def extent(mask):
    """First and last row and column of a mask (H, W)."""
    return [end for places in np.nonzero(np.asarray(mask)) for end in (places.min(), places.max())]


def test_annotations_lie_on_the_finding_whatever_the_orientation_of_the_file(items, slices):
    assert len({nib.aff2axcodes(nib.load(item["image"]).affine) for item in items}) == 4
    assert slices.masks.min() >= 0 and 0.99 < slices.masks.max() < 1.001
    assert not slices.masks[:3].any()
    without = replace(slices, masks=torch.zeros_like(slices.masks)).regions
    assert torch.equal(slices.regions, slices.masks > 0.5)
    assert torch.equal(without[3:, 0], torch.cat(slices.boxes) > 0.5) and not without[:3].any()
    for i, finding in enumerate(FINDINGS, start=3):
        mask, boxes = slices.masks[i], slices.boxes[i]
        assert slices.box_labels[i] == (finding,) and boxes.shape == (1, 128, 128)
        assert np.abs(np.subtract(extent(boxes[0] > 0.5), extent(mask[0] > 0.5))).max() <= 1
        voxels = nib.load(items[i]["label"]).get_fdata().sum()
        assert float(mask.sum()) == pytest.approx(voxels * (128 / 116) ** 2, rel=0.03)
        assert slices.images[i][mask > 0.99].std() < 0.1  # one intensity and a little noise


def test_annotations_and_groups_are_those_of_the_datalist(items, profile):
    names = ("image", "subject", "axial_slice")
    bare = load_slices([{k: item[k] for k in names} for item in items[3:5]], profile.preprocessing)
    assert not bare.masks.any() and bare.healthy.all() and set(bare.groups) == {"normal"}
    assert bare.box_labels == ((), ())
    assert all(len(boxes) == 0 for boxes in bare.boxes + bare.other_boxes)
    other = {"label": "artefact", "slice": 0, "box": [60, 60, 20, 30]}
    item = items[3] | {"other_boxes": [other], "group": "local"}
    slices = load_slices([item], profile.preprocessing)
    assert slices.groups == ["local"] and slices.box_labels[0] == ("lesion",)
    (found,) = slices.other_boxes[0]
    assert float(found.sum()) == pytest.approx(600 * (128 / 116) ** 2, rel=0.02)


def test_some_of_them(slices):
    chosen = slices[[6, 2]]
    for name in ("images", "masks"):
        assert torch.equal(getattr(chosen, name), getattr(slices, name)[[6, 2]])
    assert chosen.subjects.tolist() == [slices.subjects[6], slices.subjects[2]]
    assert torch.equal(chosen.boxes[0], slices.boxes[6]) and chosen.box_labels[1] == ()
    assert slices[slices.healthy].pathology.tolist() == ["healthy"] * 3
    for nothing in ([], np.zeros(8, bool)):
        with pytest.raises(ConfigError, match="no slice"):
            slices[nothing]


def test_a_scan_that_is_refused_is_named(items, profile, tmp_path):
    path = tmp_path / "dark.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 1), np.float32), np.diag([5.0, 5, 5, 1])), path)
    dark = {"image": str(path), "subject": "x", "axial_slice": True}
    wrong = items[3] | {"boxes": [{"label": "mass", "slice": 99, "box": [1, 1, 1, 1]}]}
    for given, message in (
        ([*items[:1], dark], r"dark\.nii\.gz; .*(constant_image|no_tissue)"),
        ([wrong], r"sub-.*_T1w\.nii\.gz; the box .* correct the datalist"),
        ([], "no scan"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            load_slices(given, profile.preprocessing)
        assert str(tmp_path) not in str(error.value)
