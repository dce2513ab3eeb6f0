"""Synthetic anomalies for healthy images (paper, Appendix C.1), and the noise of the DAE."""

from typing import Literal

import numpy as np
import torch
from skimage.draw import ellipse
from torch.nn import functional as F

from pathology_screen.errors import ConfigError, InputError

REFERENCE_SIZE = 128
"""Image side for which the paper gives its lengths in pixels; other sizes scale them."""
FOREGROUND = 0.01
"""The DAE's noise is added to brighter pixels alone."""
PERCENTILE_BANDS = ((1, 5), (30, 70), (95, 99))
"""Hypointense, mean-ranged and hyperintense."""


def add_ellipses(
    image: np.ndarray,
    rng: np.random.Generator,
    percentiles_of: Literal["image", "tissue"] = "image",
) -> tuple[np.ndarray, np.ndarray]:
    """Paint three ellipses, one hypointense, one mean-ranged, one hyperintense, into an image
    (H, W) in [0, 1]: the image, shape and dtype alike, and the mask of the ellipses, bool (H, W).

    Each intensity is uniform between two percentiles of the image as it is by then (1-5, 30-70,
    95-99), each centre uniform over the middle half (32 to 96 of 128 px), each angle uniform over
    0-360 degrees. The paper's axes, "normally distributed between 8 and 12", are read as semi-axes
    from N(10, 1) clipped to [8, 12] px. Ellipses may overlap. Percentiles of the "image" count the
    background, as the released code does: where it fills much of the image, the hypointense ellipse
    is black. "tissue" takes pixels above 0.

    Raises:
        ConfigError: if `percentiles_of` is something else.
        InputError: "no_tissue", if percentiles of tissue are wanted of an empty image.

    >>> image = np.full((128, 128), 0.5)
    >>> anomalous, mask = add_ellipses(image, np.random.default_rng(0))
    >>> bool(mask.any()), bool((anomalous[~mask] == 0.5).all())
    (True, True)
    """
    if percentiles_of not in ("image", "tissue"):
        raise ConfigError(f'percentiles_of must be "image" or "tissue", not "{percentiles_of}"')
    if percentiles_of == "tissue" and not (image > 0).any():
        raise InputError("no_tissue")
    anomalous, mask = image.copy(), np.zeros(image.shape, bool)
    scale = np.array(image.shape) / REFERENCE_SIZE
    for band in PERCENTILE_BANDS:
        values = anomalous[anomalous > 0] if percentiles_of == "tissue" else anomalous
        intensity = rng.uniform(*np.percentile(values, band))
        centre = rng.uniform(32, 96, size=2) * scale
        semi_axes = rng.normal(10, 1, size=2).clip(8, 12) * scale.min()
        rotation = np.deg2rad(rng.uniform(0, 360))
        (row, column), (height, width) = centre, semi_axes
        pixels = ellipse(row, column, height, width, shape=image.shape, rotation=rotation)
        anomalous[pixels], mask[pixels] = intensity, True
    return anomalous, mask


def copy_paste(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Copy one rectangle of an image (H, W) onto another place of it: the image, shape and dtype
    alike, and the mask of the rectangle, bool (H, W).

    Width and height are uniform over 25 to 50 px of 128, the upper left corners of source and
    destination uniform from 25 px to where the rectangle still fits.

    >>> image = np.arange(128.0 * 128).reshape(128, 128)
    >>> anomalous, mask = copy_paste(image, np.random.default_rng(0))
    >>> bool((anomalous[~mask] == image[~mask]).all()), 25**2 <= int(mask.sum()) < 50**2
    (True, True)
    """
    size = np.array(image.shape)
    low, high = np.round(np.outer([25, 50], size) / REFERENCE_SIZE).astype(int)
    extent = rng.integers(low, high)
    corners = rng.integers(low, size - extent, size=(2, 2))
    source, destination = (tuple(map(slice, corner, corner + extent)) for corner in corners)
    anomalous, mask = image.copy(), np.zeros(image.shape, bool)
    anomalous[destination], mask[destination] = image[source], True
    return anomalous, mask


def coarse_noise(
    count: int, generator: torch.Generator, size: int, deviation: float = 0.2, resolution: int = 16
) -> torch.Tensor:
    """Draw the noise of the DAE (Kascenas et al., MIDL 2022), normal with this deviation on a
    coarse grid, enlarged bilinearly with aligned corners, then rolled by one random shift that the
    whole batch shares: (count, 1, size, size), float32, on the CPU.

    With several ranks `count` is that of all their images, of which each takes its part.

    >>> coarse_noise(2, torch.Generator().manual_seed(0), size=32).shape
    torch.Size([2, 1, 32, 32])
    """
    grid = deviation * torch.randn(count, 1, resolution, resolution, generator=generator)
    noise = F.interpolate(grid, size=(size, size), mode="bilinear", align_corners=True)
    shift = torch.randint(size, (2,), generator=generator).tolist()
    return noise.roll(shift, dims=(2, 3))


def add_coarse_noise(image: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Add noise to the foreground of images: (B, 1, H, W) twice -> the same shape, not clipped.

    >>> add_coarse_noise(torch.tensor([0.0, 0.5]), torch.tensor([0.25, 0.25]))
    tensor([0.0000, 0.7500])
    """
    return image + noise * (image > FOREGROUND)
