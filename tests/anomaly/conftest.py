"""Head-like test images."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import shepp_logan_phantom
from skimage.transform import resize


def heads(n: int, size: int) -> torch.Tensor:
    """Phantom heads with texture on a black background, (n, 1, size, size) float32 in [0, 1]."""
    head = resize(shepp_logan_phantom(), (size, size))
    texture = gaussian_filter(np.random.default_rng(0).normal(size=(n, size, size)), (0, 2, 2))
    return torch.from_numpy((head * (1 + texture)).clip(0, 1)[:, None].astype(np.float32))


@pytest.fixture
def images() -> torch.Tensor:
    return heads(2, 48)


@pytest.fixture
def reconstructions(images) -> torch.Tensor:
    """A blurred version of the images, as an autoencoder would give."""
    return torch.from_numpy(gaussian_filter(images.numpy(), 1.0, axes=(2, 3)))
