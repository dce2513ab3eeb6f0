"""Masks and annotated boxes from the voxels of a scan to its prepared slice."""

import nibabel as nib
import numpy as np
import pytest
import torch
from head_builder import ellipsoids
from monai.data import MetaTensor
from monai.transforms import Compose, Resized, SpatialPadd
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from pathology_screen.errors import ConfigError
from pathology_screen.space import plane_affine
from pathology_screen.transforms import ExtractBraind, LoadScand, StandardPlaned
from pathology_screen.transforms.annotations import AnnotatedSliced

SIZE = 64
SHOWN = np.array([[0, -2.0, 0, 79], [-2.5, 0, 0, 86], [0, 0, 5.0, 0], [0, 0, 0, 1]])
"""Rows run back, columns to the left."""
SHAPE = (70, 80, 1)


def steps(*first, domain="whole_head"):
    resize = Resized("image", SIZE, size_mode="longest", mode="bilinear", anti_aliasing=True)
    plane = [ExtractBraind("image"), StandardPlaned("image", domain=domain)]
    return Compose([*first, *plane, resize, SpatialPadd("image", (SIZE, SIZE))])


@pytest.fixture
def annotated():
    return AnnotatedSliced(steps(LoadScand("image")))


def box(x, y, width, height, level=0, label="mass"):
    return {"label": label, "slice": level, "box": [x, y, width, height]}


@pytest.fixture
def slice_item(nifti):
    """Function that gives an item of one slice with a bright rectangle, its mask and its box,
    stored as asked."""

    def make(codes="RAS"):
        picture = np.random.default_rng(0).uniform(10, 20, SHAPE).astype(np.float32)
        mask = np.zeros(SHAPE, np.float32)
        mask[12:24, 10:30] = 1  # in front, and right of the middle
        picture[mask > 0] = 100
        shown = nib.Nifti1Image(picture, SHOWN)
        turn = ornt_transform(io_orientation(SHOWN), axcodes2ornt(codes))
        picture, mask = (nib.Nifti1Image(x, SHOWN).as_reoriented(turn) for x in (picture, mask))
        assert nib.aff2axcodes(picture.affine) == tuple(codes) and shown.shape == SHAPE
        x, y, _ = (np.unique(places) for places in np.nonzero(mask.get_fdata()))
        saved = {"image": picture, "label": mask}
        item = {key: nifti(it.get_fdata(), it.affine, f"{key}.nii") for key, it in saved.items()}
        boxes = [box(int(x[0]), int(y[0]), len(x), len(y))]
        return item | {"boxes": boxes, "axial_slice": True}

    return make


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "RAI", "ARS", "PLI"])
def test_mask_and_box_lie_where_the_slice_shows_the_finding(annotated, slice_item, codes):
    found = annotated(slice_item(codes))
    bright = (found["image"][0] / 100).as_tensor()
    for mask in (found["label"], found["boxes_masks"]):
        assert mask.shape == (1, SIZE, SIZE)
        assert mask.min() >= 0 and mask.max() == pytest.approx(1, abs=1e-5)
        assert ((bright > 0.6) == (mask[0] > 0.5)).float().mean() > 0.995
    rows, columns = (places.float() for places in torch.where(found["boxes_masks"][0] > 0.5))
    assert rows.max() < SIZE / 2 and columns.max() < SIZE / 2 and found["boxes_labels"] == ["mass"]


def test_other_boxes_stand_apart_and_what_has_no_annotation_gets_no_key(annotated, slice_item):
    others = [box(1, 2, 5, 6, label="artefact"), box(40, 40, 7, 8, label="edema")]
    item = slice_item() | {"other_boxes": others}
    found = annotated(item)
    assert found["other_boxes_masks"].shape == (2, SIZE, SIZE)
    assert found["other_boxes_labels"] == ["artefact", "edema"]
    shares = found["other_boxes_masks"].sum(dim=(1, 2))
    assert shares.tolist() == pytest.approx([30 * (SIZE / 80) ** 2, 56 * (SIZE / 80) ** 2], rel=0.1)
    bare = annotated({name: item[name] for name in ("image", "axial_slice")} | {"boxes": []})
    assert bare.keys() == {"image", "axial_slice", "boxes"}
    assert torch.equal(bare["image"].as_tensor(), found["image"].as_tensor())


@pytest.mark.parametrize(
    "wrong",
    [
        box(-1, 2, 3, 4),
        box(1, 2, 80, 4),
        box(1, 2, 3, 80),
        box(1, 2, 3, 4, level=1),
        box(1, 2, 3, 4, level=-1),
        box(1, 2, 0, 4),
        box(1, 2.5, 3, 4),
        {"label": "mass", "box": [1, 2, 3, 4]},
        {"label": "mass", "slice": 0, "box": [1, 2, 3]},
        {"slice": 0, "box": [1, 2, 3, 4]},
    ],
)
def test_a_box_that_is_no_part_of_the_scan_is_refused(annotated, slice_item, wrong):
    with pytest.raises(ConfigError, match="correct the datalist"):
        annotated(slice_item("RAS") | {"boxes": [wrong]})


def test_a_mask_on_other_voxels_is_refused(annotated, slice_item, nifti):
    item = slice_item()
    stored = nib.load(item["label"])
    moved = stored.affine.copy()
    moved[0, 3] += 1
    for voxels, affine in ((stored.get_fdata()[1:], stored.affine), (stored.get_fdata(), moved)):
        with pytest.raises(ConfigError, match="does not lie on the voxels"):
            annotated(item | {"label": nifti(voxels, affine, "other.nii")})


class TestVolume:
    """A volume whose registration is known: annotations follow it."""

    SHAPE = (60, 70, 50)
    AFFINE = np.array([[3.0, 0, 0, -90], [0, 3.0, 0, -100], [0, 0, 3.0, -60], [0, 0, 0, 1]])
    TO_SCAN = np.array([[0.95, 0.05, 0, 3], [-0.05, 0.9, -0.2, 2], [0, 0.2, 0.9, -8], [0, 0, 0, 1]])

    @pytest.fixture(params=["whole_head", "brain_extracted"])
    def annotate(self, request):
        """Function that annotates a head with boxes."""
        head = ellipsoids(self.SHAPE, self.AFFINE, brain_only=False)
        image = MetaTensor(head[None], affine=self.AFFINE)
        image.meta |= {"to_scan": self.TO_SCAN, "fit": {}}
        image.meta |= {"volume_shape": list(self.SHAPE), "volume_affine": self.AFFINE.tolist()}
        brain = ellipsoids(self.SHAPE, self.AFFINE, brain_only=True) > 0
        known = MetaTensor(torch.as_tensor(brain[None], dtype=torch.float32), affine=self.AFFINE)
        transform = AnnotatedSliced(Compose(steps(domain=request.param).transforms[1:]))
        return lambda boxes: transform({"image": image, "brain": known, "boxes": boxes})

    def voxel(self, row, column):
        """Of the scan, at a pixel of the plane."""
        to_voxels = np.linalg.inv(self.AFFINE) @ self.TO_SCAN @ plane_affine(23.0)
        return [round(place) for place in (to_voxels @ [row, column, 0, 1])[:3]]

    def test_a_box_lies_where_the_registration_takes_it(self, annotate):
        x, y, z = self.voxel(80, 60)
        found = annotate([box(x - 3, y - 3, 7, 7, z)])
        inside = torch.where(found["boxes_masks"][0] > 0.4)
        centre = [float(places.float().mean()) for places in inside]
        scale = SIZE / 233
        padding = (SIZE - round(197 * scale)) // 2
        assert centre == pytest.approx([80 * scale, 60 * scale + padding], abs=1.5)

        above = box(x - 3, y - 3, 7, 7, z + 10, "above")  # the plane does not cut it
        assert annotate([above, box(x - 3, y - 3, 7, 7, z)])["boxes_labels"] == ["mass"]
        assert "boxes_masks" not in annotate([above])
