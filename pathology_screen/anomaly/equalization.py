"""Adaptive histogram equalisation, `eq` in Eq. 5 of the paper."""

from __future__ import annotations

import numpy as np
import torch
from skimage.exposure import equalize_adapthist

from pathology_screen.errors import ConfigError

SMALLEST_SIDE = 16
"""scikit-image uses tiles of an eighth of the side: below 16 px a tile is one pixel and the result is noise."""


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Equalise each image by itself with `skimage.exposure.equalize_adapthist` and its defaults, as
    the released code.

    The defaults are 8 x 8 tiles, clip limit 0.01 and 256 bins. The image is stretched from its own
    minimum and maximum, so the result spans 0 to 1 whatever the image's own range. An image without
    contrast (a range below one level of 16 bits) has nothing to equalise and is returned as it is.

    Args:
        images: shape (B, 1, H, W), floating point; clamped to [0, 1] first.

    Returns:
        Shape (B, 1, H, W), float32, in [0, 1], on the device of the images.

    Raises:
        ConfigError: if a side is shorter than 16 px.
    """
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        raise ConfigError(
            f"adaptive equalisation needs images of at least {SMALLEST_SIDE} px a side"
        )
    clamped = images.detach().float().clamp(0, 1)  # (B, 1, H, W)
    equalized = [_equalize_image(image) for image in clamped.cpu().numpy()[:, 0]]
    return torch.from_numpy(np.stack(equalized)[:, None]).to(images.device)


def _equalize_image(image: np.ndarray) -> np.ndarray:
    has_contrast = np.ptp(image) >= 1 / 65535
    return equalize_adapthist(image) if has_contrast else image  # (H, W)
