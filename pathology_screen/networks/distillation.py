"""MKD, a small network that imitates VGG-16 on healthy images (Salehi et al., Multiresolution
knowledge distillation for anomaly detection, CVPR 2021,
https://github.com/rohban-lab/Knowledge_Distillation_AD)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pathology_screen.losses import feature_discrepancy
from pathology_screen.networks import vgg
from pathology_screen.networks.normalization import normalization


class GuidedReLU(torch.autograd.Function):
    """A ReLU for guided back-propagation (Springenberg et al., 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (x > 0)


class Cloner(nn.Module):
    """VGG-16 with `width` channels in all but the last layers of blocks 2 to 5, no biases.

    Normalisation and ReLU follow each convolution; the last of a block has ReLU alone.

    Args:
        width: channels, a multiple of 8 (paper: 16).
        norm: "group", "affine" or "batch" (see `normalization`).
    """

    def __init__(self, width: int = 16, norm: str = "batch") -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        inputs = 3
        for block, channels in enumerate(vgg.CHANNELS):
            layers: list[nn.Module] = []
            for _ in channels[:-1]:
                layers += [_convolution(inputs, width), normalization(norm, width), nn.ReLU()]
                inputs = width
            outputs = channels[-1] if block > 0 else width
            layers += [_convolution(inputs, outputs), nn.ReLU(), nn.MaxPool2d(2)]
            inputs = outputs
            self.blocks.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the pooled features of blocks 2 to 5, shaped as those of `vgg.Vgg16`."""
        pooled: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            pooled.append(x)
        return pooled[1:]

    def guided(self, x: Tensor) -> list[Tensor]:
        """Return what `forward` does, with the gradients of guided back-propagation."""
        pooled: list[Tensor] = []
        for block in self.blocks:
            for layer in block:  # type: ignore[attr-defined]
                x = GuidedReLU.apply(x) if isinstance(layer, nn.ReLU) else layer(x)
            pooled.append(x)
        return pooled[1:]


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.xavier_uniform_(convolution.weight)
    return convolution


class MultiresolutionDistillation(nn.Module):
    """Compare a cloner, trained on healthy slices alone, with its teacher: they disagree where a
    slice is anomalous.

    The teacher is no part of the state dict. Slices are repeated to three channels and, as in the
    source, not standardised with the statistics of ImageNet. Training minimises the mean of
    `losses.feature_discrepancy` over the four layers of `compare`; maps and score use the last
    three. Gradient maps need evaluation mode.

    Args:
        teacher: "vgg16" (paper) or "st_vgg16" (see `vgg.vgg16`).
        teacher_weights: path of the teacher's weights where they are not in their usual place.
        width, norm: see `Cloner`.
        mse_weight: see `losses.feature_discrepancy`.

    Raises:
        ArtifactError, ConfigError: see `vgg.vgg16`.
    """

    def __init__(
        self,
        teacher: str = "vgg16",
        teacher_weights: str | Path | None = None,
        width: int = 16,
        norm: str = "batch",
        mse_weight: float = 0.01,
    ) -> None:
        super().__init__()
        self.teacher = vgg.vgg16(teacher, teacher_weights)
        self.cloner = Cloner(width, norm)
        self.mse_weight = mse_weight

    def forward(self, x: Tensor) -> Tensor:
        """Return the anomaly map of `x`: (B, 1, H, W) in [0, 1] -> the same shape and range; sides
        are multiples of 32, from 64 on.

        At each layer and position 1 - cosine similarity of the two feature vectors, 0 where both
        are zero; enlarged bilinearly and averaged over the layers.
        """
        cloner, teacher = self.compare(x)
        maps: list[Tensor] = []
        for a, b in zip(cloner[1:], teacher[1:]):
            difference = F.normalize(a) - F.normalize(b)  # |a - b|^2 / 2 = 1 - cosine
            distance = 0.5 * difference.square().sum(dim=1, keepdim=True)  # (B, 1, h, w)
            maps.append(
                F.interpolate(distance, size=x.shape[2:], mode="bilinear", align_corners=False)
            )
        return torch.stack(maps).mean(dim=0)

    def compare(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the pooled features of blocks 2 to 5 of cloner and teacher for (B, 1, H, W)."""
        colour = x.expand(-1, 3, -1, -1)
        return self.cloner(colour), self.teacher(colour)

    def score(self, x: Tensor) -> Tensor:
        """Return the image score, the discrepancy of the last three layers: (B,)."""
        cloner, teacher = self.compare(x)
        return feature_discrepancy(cloner[1:], teacher[1:], self.mse_weight)

    def gradient(self, x: Tensor, guided: bool = False) -> Tensor:
        """Return the gradient of the score with respect to the image, absolute and summed over the
        three colours: (B, 1, H, W) in [0, 1] -> the same shape, at least 0; `guided` by guided
        back-propagation in the cloner."""
        with torch.enable_grad():
            colour = x.detach().repeat(1, 3, 1, 1).requires_grad_()
            cloner = self.cloner.guided(colour) if guided else self.cloner(colour)
            score = feature_discrepancy(cloner[1:], self.teacher(colour)[1:], self.mse_weight)
            (gradient,) = torch.autograd.grad(score.sum(), colour)
        return gradient.abs().sum(dim=1, keepdim=True)

    def smooth_gradient(
        self, x: Tensor, generator: torch.Generator, passes: int = 50, deviation: float = 0.05
    ) -> Tensor:
        """Return the mean of `gradient` over so many copies of the image with Gaussian noise of
        this standard deviation, drawn on the CPU (SmoothGrad, Smilkov et al., 2017)."""
        total = torch.zeros_like(x)
        for _ in range(passes):
            total += self.gradient(x + deviation * torch.randn(x.shape, generator=generator).to(x))
        return total / passes
