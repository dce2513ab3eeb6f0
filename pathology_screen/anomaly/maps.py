"""Anomaly maps and image scores: the plain residual, Eq. 5 of the paper and its ablations, those of
MKD, which compares features and reconstructs nothing, and all as a MONAI transform."""

import os
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.networks.utils import eval_mode
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import gaussian_filter1d
from skimage.exposure import equalize_adapthist
from torch import nn

from pathology_screen.anomaly.perceptual import perceptual_distance
from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.networks.distillation import MultiresolutionDistillation
from pathology_screen.space import brain_in_plane

Score = Literal["mean", "peak"]
Kind = Literal["discrepancy", "gradient", "smooth_gradient", "guided_backpropagation"]
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
        sigma: standard deviation of G in pixels of a 128 px image.
        weights: passed to `perceptual_distance`.
        score: "mean" or "peak", see the method.

    Raises:
        ConfigError: if the score is unknown; and as `perceptual_distance`.

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
        self.equalize, self.sigma, self.kind_of_score = equalize, sigma, score

    @property
    def identity(self) -> dict[str, Any]:
        """What the values depend on, ready for JSON; part of the identity of a calibration."""
        perceptual = "none" if self.perceptual is None else self.perceptual.identity
        options = {"equalize": self.equalize, "sigma": self.sigma, "score": self.kind_of_score}
        return {"perceptual": perceptual, **options}

    @torch.no_grad()
    def forward(self, image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        """Compute the maps of images (B, 1, H, W) in [0, 1] and their reconstructions: (B, 1, H,
        W), float32, at least 0, on the device of the images.

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


class DistillationMap(nn.Module):
    """Show where cloner and teacher disagree (Salehi et al., CVPR 2021); no map is scaled by
    itself.

    Args:
        network: whose output is the map "discrepancy", and whose gradients are the others.
        kind: "discrepancy" (the network's own forward map), or the gradient of the image score with
            respect to the image: "gradient", "smooth_gradient" (mean over 50 noisy copies) or
            "guided_backpropagation", which the source takes.
        sigma: of a Gaussian blur, in pixels of a 128 px image; the source blurs with 4.

    Raises:
        ConfigError: if the kind is unknown.
    """

    def __init__(
        self, network: MultiresolutionDistillation, kind: Kind = "discrepancy", sigma: float = 0.0
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            kinds = ", ".join(get_args(Kind))
            raise ConfigError(f"the kind of an MKD map is one of {kinds}, not {kind!r}")
        self.network, self.kind, self.sigma = network, kind, sigma

    @property
    def identity(self) -> dict[str, Any]:
        """See `AnomalyMap.identity`."""
        network = {"teacher": self.network.teacher.identity, "mse_weight": self.network.mse_weight}
        return {"kind": self.kind, "sigma": self.sigma, **network}

    @torch.no_grad()
    def forward(self, image: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """Return the maps of images and the network's output for them, which the gradient maps do
        not use; shapes, ranges and errors are those of `AnomalyMap.forward`."""
        x, maps = check_pair(image, prediction)
        network = self.network
        with eval_mode(network):
            if self.kind == "smooth_gradient":  # the same noise for every image of a batch
                draws = [torch.Generator().manual_seed(0) for _ in x]
                maps = torch.cat(list(map(network.smooth_gradient, x.split(1), draws)))
            elif self.kind != "discrepancy":
                maps = network.gradient(x, guided=self.kind == "guided_backpropagation")
        return gaussian_blur(maps, self.sigma) if self.sigma else maps

    @torch.no_grad()
    def score(self, image: torch.Tensor, anomaly_map: torch.Tensor) -> torch.Tensor:
        """Return the image score (B,): the discrepancy of the last three layers."""
        with eval_mode(self.network):  # MONAI's evaluators leave it in training mode by now
            return self.network.score(check_pair(image, anomaly_map)[0])


Scoring = AnomalyMap | DistillationMap
"""From an image and what a network makes of it to an anomaly map and an image score."""


class AnomalyMapd(MapTransform):
    """Add to `image` and `pred`, what the network made of it, both (1, H, W), the `anomaly_map`
    (1, H, W), float32, and the `score` that a scoring, by default `AnomalyMap()`, gives.

    Map and prediction take over the image's affine, meta data and record of applied transforms, so
    that MONAI's `Invertd(keys, transform=preprocessing, orig_keys="image")` takes both back to the
    scan.

    >>> image = torch.full((1, 32, 32), 0.5)
    >>> found = AnomalyMapd(AnomalyMap("none", equalize=False))({"image": image, "pred": image / 2})
    >>> found["anomaly_map"].shape, found["score"]
    (torch.Size([1, 32, 32]), 0.25)
    """

    def __init__(self, anomaly_map: Scoring | None = None) -> None:
        super().__init__(("image", "pred"))
        self.anomaly_map = AnomalyMap() if anomaly_map is None else anomaly_map

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image, prediction = data["image"], data["pred"]
        anomaly_map = self.anomaly_map(image[None], prediction[None])  # (1, 1, H, W)
        found = dict(data)
        for key, values in (("pred", prediction), ("anomaly_map", anomaly_map[0])):
            plain = convert_to_tensor(values, track_meta=False)
            found[key] = convert_to_dst_type(plain, image, dtype=torch.float32)[0]
        found["score"] = self.anomaly_map.score(image[None], anomaly_map).item()
        return found


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Equalise each image by itself with `skimage.exposure.equalize_adapthist` and its defaults
    (8 x 8 tiles, clip limit 0.01, 256 bins), as the released code: (B, 1, H, W), clamped to [0, 1]
    first -> the same shape and range, float32.

    The image is stretched from its own minimum and maximum, so the result spans 0 to 1. An image
    without contrast (a range below one level of 16 bits) is returned as it is.

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
    reflected borders); `sigma` in pixels of a 128 px image."""
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
    """Return images and what a network made of them, batches (B, 1, H, W) of one shape, as plain
    tensors on the device of the images; the errors are those of `AnomalyMap.forward`."""
    x = convert_to_tensor(image, dtype=dtype, track_meta=False)
    y = convert_to_tensor(prediction, dtype=dtype, device=x.device, track_meta=False)
    if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 1:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ConfigError(f"expected two batches (B, 1, H, W), got {shapes}")
    if not x.isfinite().all():
        raise InputError("not_finite", "an image to compare with the network's output")
    if not y.isfinite().all():
        raise ArtifactError(
            "the network's output holds NaN or infinite values: its weights are broken"
        )
    return x, y
