"""Black for the air around a head."""

import numpy as np
import torch
from monai.data import MetaTensor

from pathology_screen.transforms import BlackenBackgroundd


def noisy_head():
    """A disc of 0.6 with a dark cleft at its edge, on noisy air with a ghost."""
    rows, columns = np.mgrid[:120, :100] - np.array([60, 50])[:, None, None]
    disc = np.hypot(rows, columns) < 40
    cleft = disc & (np.abs(rows) < 4) & (columns > 20)
    image = np.abs(np.random.default_rng(0).normal(0, 0.03, disc.shape))
    image[disc], image[cleft], image[2:6, 2:6] = 0.6, 0.01, 0.9
    return image.astype(np.float32), disc


def test_air_becomes_black_and_the_head_keeps_every_value():
    image, disc = noisy_head()
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0]))
    made = BlackenBackgroundd("image", 0.12)({"image": MetaTensor(image[None], affine=affine)})
    black = np.asarray(made["image"][0])
    assert np.array_equal(black[disc], image[disc])  # the cleft too
    assert (black[np.hypot(*(np.indices(disc.shape) - [[[60]], [[50]]])) > 45] == 0).all()
    assert torch.equal(torch.as_tensor(made["image"].affine), affine.double())


def test_nothing_changes_without_a_level_or_without_a_head():
    image, _ = noisy_head()
    for level, values in ((None, image), (0.12, image * 0.01)):
        item = {"image": MetaTensor(values[None])}
        assert torch.equal(BlackenBackgroundd("image", level)(item)["image"], item["image"])
