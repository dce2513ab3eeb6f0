"""Anomaly maps: the plain residual, Eq. 5 of the paper and its ablations."""

import os
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.utils import convert_to_tensor
from scipy.ndimage import gaussian_filter1d
from skimage.exposure import equalize_adapthist
from torch import nn

from pathology_screen.anomaly.perceptual import perceptual_distance
from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.space import brain_in_plane

Score = Literal["mean", "peak"]
PEAK_SIGMA = 3.0
"""Standard deviation of the blur before a peak is taken, in pixels of a 128 px image (5.5 mm)."""

REFERENCE_SIZE = 128
"""Image side in pixels at which `sigma` is given; elsewhere it grows and shrinks with the image."""
SMALLEST_SIDE = 16
"""Below this a tile of the equalisation, an eighth of the side, is one pixel: all is noise."""


class AnomalyMap(nn.Module):
    """How an image x differs from its pseudo-healthy reconstruction x_ph, pixel by pixel.

    Eq. 5 as the released code computes it:

        |eq(x_ph) - eq(x)| * G(S(x_ph, x)) * G(S(eq(x_ph), eq(x)))

    with eq the adaptive histogram equalisation, S the perceptual distance and G a Gaussian blur
    that the paper does not mention. Both images are clamped to [0, 1] first. The ablations of Table
    3 are |x_ph - x| * G(S(x_ph, x)) without equalisation, |eq(x_ph) - eq(x)| without perceptual
    distance, and without both the plain residual |x_ph - x|, not clamped.

    Args:
        perceptual: "st_alex", "squeeze", "alex", "encoder" (see `perceptual_distance`), "none", or
            a module that maps two batches to a distance map and has an `identity`.
        equalize: whether to equalise.
        sigma: standard deviation of G in pixels of a 128 px image.
        weights: passed to `perceptual_distance`.
        score: "mean" or "peak", see `score`.

    >>> image = torch.full((1, 1, 32, 32), 0.5)
    >>> residual = AnomalyMap("none", equalize=False)
    >>> maps = residual(image, image - 0.25)
    >>> maps.max(), residual.score(image, maps)
    (tensor(0.2500), tensor([0.2500]))
    """

    def __init__(
        self,
        perceptual: str | nn.Module = "st_alex",
        equalize: bool = True,
        sigma: float = 2.0,
        weights: str | os.PathLike | nn.Module | None = None,
        score: Score = "mean",
    ) -> None:
        super().__init__()
        if score not in get_args(Score):
            raise ConfigError(f"the score is one of {', '.join(get_args(Score))}, not {score!r}")
        self.perceptual: nn.Module | None = None
        if isinstance(perceptual, nn.Module):
            self.perceptual = perceptual
        elif perceptual != "none":
            self.perceptual = perceptual_distance(perceptual, weights)
        self.equalize = equalize
        self.sigma, self.kind_of_score = sigma, score

    @property
    def identity(self) -> dict[str, Any]:
        """What the values of the map depend on, ready for JSON; part of the identity of a
        calibration."""
        perceptual = "none" if self.perceptual is None else self.perceptual.identity
        return {
            "perceptual": perceptual,
            "equalize": self.equalize,
            "sigma": self.sigma,
            "score": self.kind_of_score,
        }

    @torch.no_grad()
    def forward(self, image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        """Compute the maps.

        Args:
            image: shape (B, 1, H, W), in [0, 1].
            reconstruction: the same shape.

        Returns:
            Shape (B, 1, H, W), float32, at least 0, on the device of the image.

        Raises:
            InputError: "not_finite", if the image holds NaN or infinite values.
            ArtifactError: if the reconstruction does: the weights are broken.
            ConfigError: if the shapes differ or the images are too small (32 px, without perceptual
                distance 16 px).
        """
        return self.compare(*check_pair(image, reconstruction))

    def compare(self, x: torch.Tensor, x_ph: torch.Tensor) -> torch.Tensor:
        """Compute what `forward` does, of plain float32 tensors whose values are not checked;
        without equalisation by tensor operations alone, which an exported file can hold."""
        if self.perceptual is None and not self.equalize:
            return (x_ph - x).abs()

        pairs = [(x_ph.clamp(0, 1), x.clamp(0, 1))]
        if self.equalize:
            pairs.append((equalize(x_ph), equalize(x)))
        anomaly_map = torch.abs(pairs[-1][0] - pairs[-1][1])
        if self.perceptual is not None:
            for a, b in pairs:
                anomaly_map = anomaly_map * gaussian_blur(self.perceptual(a, b), self.sigma)
        return anomaly_map

    def score(self, image: torch.Tensor, anomaly_map: torch.Tensor) -> torch.Tensor:
        """Score maps: (B, 1, H, W) -> (B,); the image has no part in it.

        "mean" is over all pixels, background included, as in the released code. "peak" is the
        highest value inside the template's brain after a blur of `PEAK_SIGMA`: a lesion moves it
        that is small beside the slice.
        """
        if self.kind_of_score == "mean":
            return anomaly_map.mean(dim=(1, 2, 3))
        height, width = map(int, anomaly_map.shape[2:])
        brain = torch.from_numpy(brain_in_plane((height, width))).to(anomaly_map)
        return (gaussian_blur(anomaly_map, PEAK_SIGMA) * brain).amax(dim=(1, 2, 3))


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Equalise each image by itself with `skimage.exposure.equalize_adapthist` and its defaults
    (8 x 8 tiles, clip limit 0.01, 256 bins), as the released code.

    The image is stretched from its own minimum and maximum, so the result spans 0 to 1. An image
    without contrast (a range below one level of 16 bits) is returned as it is.

    Args:
        images: shape (B, 1, H, W), floating point; clamped to [0, 1] first.

    Returns:
        Shape (B, 1, H, W), float32, in [0, 1], on the device of the images.

    Raises:
        ConfigError: if a side is shorter than 16 px.

    >>> equalized = equalize(torch.linspace(0, 0.5, 32 * 32).view(1, 1, 32, 32))
    >>> equalized.min(), equalized.max()
    (tensor(0.), tensor(1.))
    """
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        raise ConfigError(
            f"adaptive equalisation needs images of at least {SMALLEST_SIDE} px a side"
        )
    clamped = images.detach().float().clamp(0, 1).cpu().numpy()[:, 0]  # (B, H, W)
    equalized = [
        equalize_adapthist(image) if np.ptp(image) >= 1 / 65535 else image for image in clamped
    ]
    return torch.from_numpy(np.stack(equalized)[:, None]).to(images.device)


def gaussian_blur(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur maps (B, 1, H, W) as `scipy.ndimage.gaussian_filter` does by default (cut at 4 sigma,
    reflected borders); `sigma` in pixels of a 128 px image.

    >>> gaussian_blur(torch.ones(1, 1, 16, 16), sigma=2.0).mean().round(decimals=5)
    tensor(1.)
    """
    rows, columns = (
        torch.from_numpy(_blur_matrix(side, sigma * side / REFERENCE_SIZE)).to(maps)
        for side in map(int, maps.shape[-2:])
    )
    return rows @ maps @ columns.T


@cache
def _blur_matrix(side: int, sigma: float) -> np.ndarray:
    """The blur of one axis of so many pixels as a matrix (side, side): it is linear, so its columns
    are scipy's answers to single bright pixels."""
    return gaussian_filter1d(np.eye(side), sigma, axis=0)


def check_pair(
    image: torch.Tensor, prediction: torch.Tensor, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and what a network made of them as plain tensors on the device of the images.

    Raises:
        InputError: "not_finite", if an image holds NaN or infinite values.
        ArtifactError: if a prediction does: the weights are broken.
        ConfigError: if they are not two batches (B, 1, H, W) of one shape.
    """
    x = convert_to_tensor(image, dtype=dtype, track_meta=False)
    y = convert_to_tensor(prediction, dtype=dtype, device=x.device, track_meta=False)
    if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 1:
        raise ConfigError(
            f"expected two batches (B, 1, H, W), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not x.isfinite().all():
        raise InputError("not_finite", "an image to compare with the network's output")
    if not y.isfinite().all():
        raise ArtifactError(
            "the network's output holds NaN or infinite values: its weights are broken"
        )
    return x, y
