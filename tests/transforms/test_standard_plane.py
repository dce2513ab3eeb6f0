"""Brain mask and standard plane as MONAI transforms: shapes, meta data, both domains, and `Invertd`
after resizing."""

import numpy as np
import pytest
import torch
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
from pathology_screen.transforms import ExtractBraind, LoadScand, StandardPlaned

SHAPE = (110, 90, 100)
AFFINE = np.array(
    [[0, 2.0, 0, -90], [-2.0, 0, 0, 110], [0, 0, 2.0, -70], [0, 0, 0, 1]]
)  # stored as P, R, S
TO_SCAN = np.array([[0.95, 0.05, 0, 3], [-0.05, 0.9, -0.2, 2], [0, 0.2, 0.9, -8], [0, 0, 0, 1]])


@pytest.fixture
def registered(monkeypatch):
    """Replace the registration; the list tells of its calls."""
    calls = []

    def register(brain):
        calls.append(brain)
        return TO_SCAN, Fit(0.95, 0.6, 12.0)

    monkeypatch.setattr("pathology_screen.space.registration.register", register)
    return calls


@pytest.fixture
def item(head) -> dict:
    """A scan and its brain."""
    volume = head(SHAPE, AFFINE, brain_only=False)
    brain = head(SHAPE, AFFINE, brain_only=True) > 0
    return {
        "image": MetaTensor(volume[None], affine=AFFINE),
        "brain": MetaTensor(brain[None].astype(np.float32), affine=AFFINE),
    }


def test_the_plane_of_the_whole_head_and_of_the_brain(registered, item):
    volume, brain = (np.asarray(item[key][0]) for key in ("image", "brain"))
    head = StandardPlaned("image")(item)
    alone = StandardPlaned("image", domain="brain_extracted")(item)["image"]
    expected = take_plane(volume, AFFINE, TO_SCAN)
    inside = take_plane(brain, AFFINE, TO_SCAN) >= 0.5
    assert (
        head["image"].shape == head["brain"].shape == (1, 233, 197)
        and head["image"].dtype == torch.float32
    )
    assert np.array_equal(head["image"][0], expected)
    assert np.array_equal(alone[0], np.where(inside, expected, 0)) and np.array_equal(
        head["brain"][0], inside
    )
    assert np.array_equal(np.asarray(registered[0].dataobj), volume * brain)
    assert np.array_equal(head["image"].affine, np.eye(3))
    meta = head["image"].meta
    assert np.array_equal(meta["to_scan"], TO_SCAN) and meta["z_mm"] == 23
    assert meta["fit"] == {"dice": 0.95, "correlation": 0.6, "turn": 12.0, "shown": 1.0}


def test_a_level_of_the_item_and_a_known_map_are_used(registered, item):
    first = StandardPlaned("image")(item)["image"]
    item["image"].meta |= {name: first.meta[name] for name in ("to_scan", "fit")}
    other = StandardPlaned("image")({**item, "z_mm": 40})["image"]
    assert len(registered) == 1 and other.meta["z_mm"] == 40
    assert np.array_equal(other[0], take_plane(item["image"][0].numpy(), AFFINE, TO_SCAN, 40.0))


def test_results_go_back_to_the_voxels_after_padding_and_resizing(registered, item):
    steps = [
        StandardPlaned("image"),
        SpatialPadd("image", (233, 233)),
        Resized("image", (466, 466), mode="bilinear"),
    ]
    pipeline = Compose(steps)
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


def test_masks_come_back_as_they_were_with_nearest_interpolation(registered, item):
    pipeline = Compose([StandardPlaned("image"), SpatialPadd("image", (233, 233))])
    data = pipeline(item)
    mask = torch.zeros(1, 233, 233)
    mask[0, 100:140, 80:120] = 1
    data["pred"] = MetaTensor(mask)
    back = np.asarray(
        Invertd("pred", pipeline, orig_keys="image", nearest_interp=True)(data)["pred"][0]
    )
    assert set(np.unique(back)) == {0, 1}
    where = apply_affine(
        np.linalg.inv(plane_affine()) @ np.linalg.inv(TO_SCAN) @ AFFINE, np.argwhere(back)
    )
    low, high = where.min(axis=0), where.max(axis=0)
    assert np.allclose(low[:2], [100, 80 - 18], atol=1.6) and np.allclose(
        high[:2], [139, 119 - 18], atol=1.6
    )


def test_several_channels_and_masks_on_the_same_voxels_come_along(registered, item):
    item["label"] = MetaTensor(torch.cat([item["brain"], 1 - item["brain"]]), affine=AFFINE)
    step = StandardPlaned(("image", "label"))
    out = step(item)
    assert out["label"].shape == (2, 233, 197)
    assert torch.allclose(out["label"].as_tensor().sum(0)[80:150, 60:130], torch.ones(70, 70))
    assert step.inverse(out)["label"].shape == (2, *SHAPE)
    item["label"] = MetaTensor(
        item["brain"].as_tensor().clone(), affine=AFFINE + np.diag([1, 0, 0, 0])
    )
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
    assert not registered and "brain" not in out
    assert np.array_equal(out["image"], shown[..., 0])
    assert np.allclose(np.diag(out["image"].affine), [2.0, 1.5, 1])
    back = pipeline.inverse(out)["image"]
    assert np.array_equal(back, moved) and np.array_equal(back.affine, moved.affine)


def test_several_slices_are_no_axial_slice(item):
    with pytest.raises(ConfigError, match="100"):
        StandardPlaned("image")({**item, "axial_slice": True})


def test_a_fit_that_fails_is_refused(registered, item, monkeypatch):
    monkeypatch.setattr(
        "pathology_screen.space.registration.register", lambda brain: (TO_SCAN, Fit(0.5, 0.0))
    )
    with pytest.raises(InputError) as refusal:
        StandardPlaned("image")(item)
    assert refusal.value.code == "registration_failed"


def test_the_brain_is_a_mask_of_its_own(item):
    scan = MetaTensor(item["image"].as_tensor() * item["brain"].as_tensor(), affine=AFFINE)
    out = ExtractBraind("image", mask_key="mask")({"image": scan})
    assert torch.equal(out["image"], scan) and out["image"].meta["brain_extracted"]
    assert torch.equal(out["mask"].as_tensor(), item["brain"].as_tensor()) and np.array_equal(
        out["mask"].affine, AFFINE
    )
    with pytest.raises(ConfigError, match="one key"):
        ExtractBraind(("image", "label"))


def test_an_unknown_domain_is_a_wrong_option():
    with pytest.raises(ConfigError, match="whole_head"):
        StandardPlaned("image", domain="head")


@pytest.mark.needs_shared
@pytest.mark.parametrize(("scan", "least"), [("IXI012-HH-1211", 0.975), ("IXI015-HH-1258", 0.985)])
def test_the_plane_is_that_of_the_authors_slices(shared_data, scan, least):
    """Their columns run to the patient's right, these to the left."""
    pipeline = Compose([LoadScand("image"), ExtractBraind("image"), StandardPlaned("image")])
    plane = pipeline({"image": shared_data / "whole_head" / f"{scan}_T1.nii.gz"})["image"][0]
    authors = np.asarray(Image.open(shared_data / "ixi_slices" / f"sub-{scan[:6]}_T1w.png"))[
        :, ::-1
    ]
    assert plane.shape == authors.shape
    assert np.corrcoef(np.asarray(plane).ravel(), authors.ravel())[0, 1] >= least
    assert np.corrcoef(np.asarray(plane).ravel(), authors[:, ::-1].ravel())[0, 1] < 0.96
