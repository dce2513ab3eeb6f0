"""Where the pixels of a prepared slice lie, and the way back to the voxels of its scan."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Resized, SpatialPadd

from pathology_screen.space import plane_affine
from pathology_screen.transforms import LoadScand, StandardPlaned, slice_affines, slice_to_scan

SHAPE = (60, 70, 50)
AFFINE = np.array([[0, 3.0, 0, -100], [-3.0, 0, 0, 90], [0, 0, 3.0, -60], [0, 0, 0, 1]])
TO_SCAN = np.array([[0.95, 0.05, 0, 3], [-0.05, 0.9, -0.2, 2], [0, 0.2, 0.9, -8], [0, 0, 0, 1]])


def preprocessing(*first, size=128):
    return Compose(
        [
            *first,
            StandardPlaned("image"),
            Resized("image", size, size_mode="longest", mode="bilinear"),
            SpatialPadd("image", (size, size)),
        ]
    )


@pytest.fixture
def ramps():
    """The coordinates in mm of the voxels of a scan whose registration is known, three scans."""
    places = (
        np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) @ AFFINE[:3, :3].T
        + AFFINE[:3, 3]
    )
    images = [MetaTensor(places[None, ..., i].astype(np.float32), affine=AFFINE) for i in range(3)]
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


def test_the_pixels_of_the_plane_itself_are_those_of_the_plane(ramps):
    image = prepared(Compose([StandardPlaned("image")]), ramps[0])
    assert np.allclose(slice_affines(image)[1], plane_affine(23.0))


def test_values_return_to_the_voxels_that_the_plane_cuts(ramps):
    steps = preprocessing()
    image = prepared(steps, ramps[0])
    values = torch.zeros(1, 128, 128)
    values[0, 40:60, 50:70] = 1
    back = slice_to_scan(steps, image, values, nearest=True)
    assert (
        back.shape == (1, *SHAPE)
        and np.allclose(back.affine, AFFINE)
        and set(back.unique().tolist()) == {0, 1}
    )
    to_scan, _ = slice_affines(image)
    pixels = (
        np.linalg.inv(to_scan)
        @ AFFINE
        @ np.vstack([np.argwhere(back[0].numpy()).T, np.ones(int(back.sum()))])
    )
    assert (abs(pixels[2]) < 3).all()  # in mm from the plane: half a voxel, oblique
    assert (
        pixels[0].min() >= 39
        and pixels[0].max() <= 60
        and pixels[1].min() >= 49
        and pixels[1].max() <= 70
    )
    voxels = 400 * (233 / 128) ** 2 / 9
    assert 0.7 * voxels < int(back.sum()) < 2.2 * voxels


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ARS"])
def test_a_single_slice_goes_back_to_itself(nifti, codes):
    """It is not registered, so that nothing leads to MNI152 space."""
    affine = {
        "RAS": np.diag([2.0, 2, 5, 1]),
        "LPS": np.diag([-2.0, -2, 5, 1]),
        "ARS": np.array([[0, 2.0, 0, 5], [2.0, 0, 0, 7], [0, 0, 5.0, 9], [0, 0, 0, 1]]),
    }[codes]
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
    assert (to_scan @ [row, column, 0, 1])[:3] == pytest.approx(
        (affine @ [i, j, 0, 1])[:3], abs=1e-3
    )
