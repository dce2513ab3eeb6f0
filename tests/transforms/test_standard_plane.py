"""Standard plane as a MONAI transform (shapes, meta data, both domains), where the pixels of a
prepared slice lie, and the way back to the voxels of its scan."""

import numpy as np
import pytest
import torch
from head_builder import ellipsoids
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, Invertd, Resized, SpatialPadd
from nibabel.affines import apply_affine
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from PIL import Image

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.space import Fit, plane_affine, put_back, take_plane
from pathology_screen.transforms import (
    ExtractBraind,
    LoadScand,
    StandardPlaned,
    shown_pixels,
    slice_affines,
    slice_to_scan,
)

SHAPE = (110, 90, 100)
AFFINE = np.array([[0, 2.0, 0, -90], [-2.0, 0, 0, 110], [0, 0, 2.0, -70], [0, 0, 0, 1]])
"""Stored as P, R, S."""
TO_SCAN = np.array([[0.95, 0.05, 0, 3], [-0.05, 0.9, -0.2, 2], [0, 0.2, 0.9, -8], [0, 0, 0, 1]])


@pytest.fixture
def registered(monkeypatch):
    """Replace the registration; the list tells of its calls, and its last entry the next fit."""
    calls = [Fit(0.95, 0.6, 12.0)]

    def register(*scan):
        calls.insert(0, scan)
        return TO_SCAN, calls[-1]

    monkeypatch.setattr("pathology_screen.transforms.standard_plane.register", register)
    return calls


@pytest.fixture
def item() -> dict:
    """A scan and its brain."""
    volume = ellipsoids(SHAPE, AFFINE, brain_only=False)
    brain = ellipsoids(SHAPE, AFFINE, brain_only=True) > 0
    return {
        "image": MetaTensor(volume[None], affine=AFFINE),
        "brain": MetaTensor(brain[None].astype(np.float32), affine=AFFINE),
    }


def test_the_brain_is_a_mask_of_its_own():
    brain = ellipsoids(SHAPE, AFFINE, brain_only=True)[None]
    scan = MetaTensor(brain, affine=AFFINE)
    out = ExtractBraind("image", mask_key="mask")({"image": scan})
    assert torch.equal(out["image"], scan) and out["image"].meta["brain_extracted"]
    assert np.array_equal(out["mask"], brain > 0) and out["mask"].dtype == torch.uint8
    assert np.array_equal(out["mask"].affine, AFFINE)


def test_the_plane_of_the_whole_head_and_of_the_brain(registered, item):
    volume, brain = (np.asarray(item[key][0]) for key in ("image", "brain"))
    head = StandardPlaned("image")(item)
    alone = StandardPlaned("image", domain="brain_extracted")(item)["image"]
    expected = take_plane(volume, AFFINE, TO_SCAN)
    inside = take_plane(brain, AFFINE, TO_SCAN) >= 0.5
    assert head["image"].shape == head["brain"].shape == (1, 233, 197)
    assert head["image"].dtype == torch.float32
    assert np.array_equal(head["image"][0], expected)
    assert np.array_equal(alone[0], np.where(inside, expected, 0))
    assert np.array_equal(head["brain"][0], inside)
    assert all(map(np.array_equal, registered[0], (volume, AFFINE, brain > 0)))
    assert np.array_equal(head["image"].affine, np.eye(3))
    meta = head["image"].meta
    assert np.array_equal(meta["to_scan"], TO_SCAN) and meta["z_mm"] == 23
    assert meta["fit"] == {"dice": 0.95, "correlation": 0.6, "turn": 12.0, "shown": 1.0}


def test_a_level_of_the_item_and_a_known_map_are_used(registered, item):
    first = StandardPlaned("image")(item)["image"]
    item["image"].meta |= {name: first.meta[name] for name in ("to_scan", "fit")}
    other = StandardPlaned("image")({**item, "z_mm": 40})["image"]
    assert len(registered) == 2 and other.meta["z_mm"] == 40
    assert np.array_equal(other[0], take_plane(item["image"][0].numpy(), AFFINE, TO_SCAN, 40.0))


def test_results_go_back_to_the_voxels_after_padding_and_resizing(registered, item):
    resize = Resized("image", (466, 466), mode="bilinear")
    pipeline = Compose([StandardPlaned("image"), SpatialPadd("image", (233, 233)), resize])
    data = pipeline(item)
    assert data["image"].shape == (1, 466, 466)
    data["pred"] = MetaTensor(data["image"].as_tensor().clone())
    back = Invertd("pred", pipeline, orig_keys="image", nearest_interp=False)(data)["pred"]
    assert back.shape == (1, *SHAPE) and np.array_equal(back.affine, AFFINE)
    plane = StandardPlaned("image")(item)["image"][0]
    expected, covered = put_back(np.asarray(plane), TO_SCAN, 23.0, SHAPE, AFFINE)
    assert not np.asarray(back[0])[~covered].any()
    apart = np.abs(np.asarray(back[0]) - expected)[covered]
    assert np.median(apart) < 2 and apart.mean() < 15  # of 1000; edges are smoothed
    truth = np.asarray(item["image"][0])[covered]
    assert np.corrcoef(np.asarray(back[0])[covered], truth)[0, 1] > 0.97


def test_several_channels_and_masks_on_the_same_voxels_come_along(registered, item):
    item["label"] = MetaTensor(torch.cat([item["brain"], 1 - item["brain"]]), affine=AFFINE)
    step = StandardPlaned(("image", "label"))
    out = step(item)
    assert out["label"].shape == (2, 233, 197)
    assert torch.allclose(out["label"].as_tensor().sum(0)[80:150, 60:130], torch.ones(70, 70))
    assert step.inverse(out)["label"].shape == (2, *SHAPE)
    moved = AFFINE + np.diag([1, 0, 0, 0])
    item["label"] = MetaTensor(item["brain"].as_tensor().clone(), affine=moved)
    with pytest.raises(ConfigError, match="label"):
        step(item)


def test_batches_are_collated_and_decollated(registered, item):
    step = StandardPlaned("image")
    batch = list_data_collate([step(item), step(item)])
    assert batch["image"].shape == (2, 1, 233, 197)
    one = decollate_batch(batch)[1]["image"]
    assert np.allclose(one.meta["to_scan"], TO_SCAN)
    assert step.inverse({"image": one})["image"].shape == (1, *SHAPE)


@pytest.mark.parametrize("codes", ["RAS", "PLS", "LPI", "ASR", "SRP"])
def test_a_single_axial_slice_only_becomes_flat(registered, codes):
    shown = np.random.default_rng(0).random((1, 30, 20, 1), np.float32)  # P, L, S
    affine = np.array([[0, -1.5, 0, 9], [-2.0, 0, 0, 7], [0, 0, 3.0, 23], [0, 0, 0, 1]])
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    stored = apply_orientation(shown[0], turn)
    moved = MetaTensor(stored[None].copy(), affine=affine @ inv_ornt_aff(turn, (30, 20, 1)))
    pipeline = Compose([ExtractBraind("image"), StandardPlaned("image")])
    out = pipeline({"image": moved, "axial_slice": True})
    assert len(registered) == 1 and "brain" not in out
    assert np.array_equal(out["image"], shown[..., 0])
    assert np.allclose(np.diag(out["image"].affine), [2.0, 1.5, 1])
    back = pipeline.inverse(out)["image"]
    assert np.array_equal(back, moved) and np.array_equal(back.affine, moved.affine)


def test_what_makes_no_plane_is_refused(registered, item):
    with pytest.raises(ConfigError, match="one key"):
        ExtractBraind(("image", "label"))
    with pytest.raises(ConfigError, match="whole_head"):
        StandardPlaned("image", domain="head")
    alone = {"image": item["image"]}
    for wrong, said in ((item | {"axial_slice": True}, "100"), (alone, "give it as brain")):
        with pytest.raises(ConfigError, match=said):
            StandardPlaned("image")(wrong)
    registered.append(Fit(0.5, 0.0))
    with pytest.raises(InputError, match="registration_failed"):
        StandardPlaned("image")(item)


@pytest.mark.needs_shared
@pytest.mark.parametrize(("scan", "least"), [("IXI012-HH-1211", 0.975), ("IXI015-HH-1258", 0.985)])
def test_the_plane_is_that_of_the_authors_slices(shared_data, scan, least):
    """Their columns run to the patient's right, these to the left."""
    pipeline = Compose([LoadScand("image"), ExtractBraind("image"), StandardPlaned("image")])
    plane = pipeline({"image": shared_data / "whole_head" / f"{scan}_T1.nii.gz"})["image"][0]
    picture = Image.open(shared_data / "ixi_slices" / f"sub-{scan[:6]}_T1w.png")
    authors = np.asarray(picture)[:, ::-1]
    assert plane.shape == authors.shape
    assert np.corrcoef(np.asarray(plane).ravel(), authors.ravel())[0, 1] >= least
    assert np.corrcoef(np.asarray(plane).ravel(), authors[:, ::-1].ravel())[0, 1] < 0.96


# --- the way back ---

COARSE = (60, 70, 50)
COARSE_AFFINE = np.array([[0, 3.0, 0, -100], [-3.0, 0, 0, 90], [0, 0, 3.0, -60], [0, 0, 0, 1]])


def preprocessing(*first, size=128):
    resize = Resized("image", size, size_mode="longest", mode="bilinear")
    steps = [*first, StandardPlaned("image"), resize, SpatialPadd("image", (size, size))]
    return Compose(steps)


@pytest.fixture
def ramps():
    """The coordinates in mm of the voxels of a scan whose registration is known, three scans."""
    places = apply_affine(COARSE_AFFINE, np.moveaxis(np.indices(COARSE), 0, -1))
    coordinates = np.moveaxis(places, -1, 0)[:, None].astype(np.float32)
    images = [MetaTensor(one, affine=COARSE_AFFINE) for one in coordinates]
    for image in images:
        image.meta |= {"to_scan": TO_SCAN, "fit": {}}
    return images


def prepared(steps, image):
    return steps({"image": image, "brain": torch.ones_like(image)})["image"]


def test_the_affine_leads_from_pixels_to_the_scan(ramps):
    """A scan whose voxels hold their own coordinates shows where each pixel was taken from."""
    slices = [prepared(preprocessing(), image) for image in ramps]
    to_scan, to_mni = slice_affines(slices[0])
    for row, column in ((64, 64), (40, 50), (80, 70)):
        shown = [float(image[0, row, column]) for image in slices]
        assert shown == pytest.approx((to_scan @ [row, column, 0, 1])[:3], abs=0.05)
    assert np.allclose(TO_SCAN @ to_mni, to_scan)
    assert (to_mni @ [10, 20, 0, 1])[2] == pytest.approx(23)
    assert np.allclose(np.linalg.norm(to_mni[:3, :2], axis=0), 233 / 128, rtol=0.01)
    image = prepared(Compose([StandardPlaned("image")]), ramps[0])  # the plane itself
    assert np.allclose(slice_affines(image)[1], plane_affine(23.0))


def test_values_return_to_the_voxels_that_the_plane_cuts(ramps):
    steps = preprocessing()
    image = prepared(steps, ramps[0])
    values = torch.zeros(1, 128, 128)
    values[0, 40:60, 50:70] = 1
    back = slice_to_scan(steps, image, values, nearest=True)
    assert back.shape == (1, *COARSE) and np.allclose(back.affine, COARSE_AFFINE)
    assert set(back.unique().tolist()) == {0, 1}
    to_pixels = np.linalg.inv(slice_affines(image)[0]) @ COARSE_AFFINE
    rows, columns, depths = apply_affine(to_pixels, np.argwhere(back[0].numpy())).T
    assert (abs(depths) < 3).all()  # in mm from the plane: half a voxel, oblique
    assert rows.min() >= 39 and rows.max() <= 60 and columns.min() >= 49 and columns.max() <= 70
    voxels = 400 * (233 / 128) ** 2 / 9
    assert 0.7 * voxels < int(back.sum()) < 2.2 * voxels


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ARS"])
def test_a_single_slice_goes_back_to_itself(nifti, codes):
    """It is not registered, so that nothing leads to MNI152 space."""
    affine = inv_ornt_aff(axcodes2ornt(codes), (64, 48, 1)) @ np.diag([2.0, 2, 5, 1])
    picture = np.random.default_rng(0).uniform(0, 1, (64, 48, 1)).astype(np.float32)
    picture[0, 0] = 0  # black, or the readers take the darkest for the background
    steps = preprocessing(LoadScand("image"), size=64)
    image = steps({"image": nifti(picture, affine), "axial_slice": True})["image"]
    back = slice_to_scan(steps, image, image.as_tensor())
    assert back.shape == (1, 64, 48, 1) and np.allclose(back.affine, affine)
    assert np.allclose(back[0], picture, atol=1e-4)
    to_scan, to_mni = slice_affines(image)
    assert to_mni is None
    i, j, _ = np.unravel_index(picture.argmax(), picture.shape)
    row, column = divmod(int(image[0].argmax()), 64)
    assert to_scan @ [row, column, 0, 1] == pytest.approx(affine @ [i, j, 0, 1], abs=1e-3)


def test_padding_is_told_from_the_plane(registered, item):
    steps = [StandardPlaned("image"), Resized("image", 64, size_mode="longest")]
    plain = Compose(steps)(item)["image"]
    padded = Compose([*steps, SpatialPadd("image", (64, 64))])(item)["image"]
    assert shown_pixels(plain).all() and plain.shape == (1, 64, 54)
    shown = shown_pixels(padded)
    assert shown.shape == (64, 64) and shown.sum() == 64 * 54
    assert torch.equal(padded.as_tensor()[:, shown], plain.as_tensor().flatten(1))
