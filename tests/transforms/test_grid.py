"""The network grid, and the way back to the pixels of the slice."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Resize, SpatialPad
from skimage.transform import resize

from pathology_screen.errors import InputError
from pathology_screen.transforms import ResampleToGridd

GRIDS = {"isotropic": 208.0, "padded": None}


def blob(shape, pixel, centre=None, radius=60.0):
    """A smooth hill of the given radius in mm on zero: MetaTensor (1, H, W)."""
    centre = (np.array(shape) - 1) / 2 * pixel if centre is None else centre
    places = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) * pixel
    height = np.clip(1 - ((places - centre) ** 2).sum(-1) / radius**2, 0, None) ** 2
    return MetaTensor(height[None].astype(np.float32), affine=np.diag([*pixel, 1.0]))


def centroid(image, pixel):
    weights = np.asarray(image[0], float)
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return np.array([(rows * weights).sum(), (columns * weights).sum()]) / weights.sum() * pixel


@pytest.mark.parametrize("shape", [(200, 200), (256, 192), (176, 208), (100, 90)])
def test_the_padded_grid_is_pad_to_square_and_resize(shape):
    image = blob(shape, (0.9, 0.9), radius=40)
    out = ResampleToGridd("image", millimetres=None, antialias=False)({"image": image})["image"]
    square = SpatialPad((max(shape), max(shape)))(image.as_tensor())
    expected = Resize((128, 128), mode="bilinear", align_corners=False)(square)
    assert out.shape == (1, 128, 128)
    assert torch.allclose(out.as_tensor(), torch.as_tensor(expected), atol=1e-5)


def test_the_padded_grid_keeps_proportions_in_mm():
    image = blob((128, 64), (1.0, 2.0), radius=40)  # a circle of 40 mm stored with oblong pixels
    out = ResampleToGridd("image", millimetres=None, antialias=False)({"image": image})["image"]
    lit = np.asarray(out[0]) > 0.05
    assert abs(int(lit.any(0).sum()) - int(lit.any(1).sum())) <= 2


@pytest.mark.parametrize("pixel", [(0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (0.7, 1.9)])
def test_the_isotropic_grid_keeps_the_size_of_a_brain(pixel):
    shape = tuple(int(200 / side) for side in pixel)
    image = blob(shape, pixel, centre=np.array([85.0, 110.0]))
    grid = ResampleToGridd("image")
    out = grid({"image": image})["image"]
    lit = np.asarray(out[0]) > 0.25  # the hill falls to a quarter at radius * sqrt(1 / 2)
    assert np.sqrt(lit.sum() / np.pi) * 208 / 128 == pytest.approx(60 * np.sqrt(0.5), abs=1)
    assert centroid(out, 1) == pytest.approx([63.5, 63.5], abs=1)
    assert np.diag(out.affine)[:2] == pytest.approx([1.625, 1.625])


def test_growing_pixels_are_smoothed_by_the_rule_of_scikit_image():
    rng = np.random.default_rng(0)
    image = np.zeros((256, 256), np.float32)
    image[64:192, 64:192] = rng.uniform(0.2, 1, (128, 128))
    loaded = MetaTensor(image[None], affine=torch.eye(3, dtype=torch.float64))
    out = np.asarray(ResampleToGridd("image", size=64, millimetres=256.0)({"image": loaded})["image"][0])
    expected = resize(image, (64, 64), order=1, anti_aliasing=True, mode="constant")
    assert np.abs(out - expected).max() < 0.01
    raw = np.asarray(ResampleToGridd("image", size=64, millimetres=256.0, antialias=False)({"image": loaded})["image"])
    assert raw[0, 20:44, 20:44].std() > 1.5 * out[20:44, 20:44].std()


def test_a_slice_without_tissue_is_refused():
    with pytest.raises(InputError) as refusal:
        ResampleToGridd("image")({"image": MetaTensor(torch.zeros(1, 9, 9), affine=torch.eye(3))})
    assert refusal.value.code == "no_tissue"


@pytest.mark.parametrize("millimetres", GRIDS.values(), ids=GRIDS.keys())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mark_stays_where_it_was(millimetres, data):
    pixel = np.array(data.draw(st.tuples(*[st.floats(0.4, 4)] * 2)))
    shape = tuple(int(data.draw(st.floats(150, 200)) / side) for side in pixel)
    image = blob(shape, pixel)
    place = [data.draw(st.integers(n // 4, 3 * n // 4)) for n in shape]
    mark = torch.zeros(1, *shape)
    mark[0, place[0], place[1]] = 1
    item = {"image": image, "mark": MetaTensor(mark, affine=image.affine)}
    grid = ResampleToGridd(("image", "mark"), millimetres=millimetres)
    moved = grid(item)
    back = grid.inverse(moved)
    assert back["mark"].shape == mark.shape
    step = float(moved["mark"].affine[0, 0])
    off = centroid(back["mark"], pixel) - np.array(place) * pixel
    assert np.all(np.abs(off) < 0.5 * max(step, *pixel))
    assert torch.allclose(back["image"].affine, image.affine)


@pytest.mark.parametrize("millimetres", GRIDS.values(), ids=GRIDS.keys())
def test_a_smooth_image_survives_there_and_back(millimetres):
    image = blob((210, 180), (0.8, 1.1))
    grid = ResampleToGridd("image", millimetres=millimetres)
    back = grid.inverse(grid({"image": image}))["image"]
    error = np.abs(np.asarray(back) - np.asarray(image))
    assert error.max() < 0.02
    assert error.mean() < 0.002
