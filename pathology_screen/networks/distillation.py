"""MKD, a small network that imitates VGG-16 on healthy images (Salehi et al., Multiresolution
knowledge distillation for anomaly detection, CVPR 2021,
https://github.com/rohban-lab/Knowledge_Distillation_AD), and its teacher: the trunk of Simonyan and
Zisserman (ICLR 2015) or its anti-aliased form (Zhang, ICML 2019)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VGG16_Weights

from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.losses import feature_discrepancy
from pathology_screen.networks.normalization import normalization
from pathology_screen.networks.weights import (
    hub_file,
    read_checkpoint,
    st_lpips_file,
    tensors_sha256,
)

CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions of each block of VGG-16; a pooling follows each block."""

VGG16_URL = VGG16_Weights.IMAGENET1K_V1.url
ST_VGG16_SHA256 = "1ec8e36b36783a16fd557d65174a8c0b2f7c4f7dc4768e388628ea6aab3466f9"


class Trunk(nn.Module):
    """Blocks, each of which ends in a pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return what the poolings of blocks 2 to 5 give: (B, 3, H, W), sides multiples of 32 ->
        (B, C, h, w) with C = 128, 256, 512, 512 and sides of 1/4, 1/8, 1/16, 1/32."""
        pooled: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            pooled.append(x)
        return pooled[1:]


class FrozenConv2d(nn.Module):
    """A 3x3 convolution whose weights are no parameters and appear in no state dict."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=1)


class MaxBlurPool(nn.Module):
    """Take the maximum of 2x2 pixels, blur by a 3x3 binomial filter, keep every second pixel."""

    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        binomial = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float32) / 4
        kernel = torch.outer(binomial, binomial).repeat(channels, 1, 1, 1)  # (C, 1, 3, 3)
        self.register_buffer("filter", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(F.max_pool2d(x, 2, stride=1), (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.filter, stride=2, groups=x.shape[1])


class Vgg16(Trunk):
    """VGG-16 of a file of weights, frozen: no parameters, but saved in TorchScript. "st_vgg16"
    pools with `MaxBlurPool`. `identity`, the name and the sha256 of the weights, is for that of a
    calibration."""

    def __init__(self, name: str, path: str | Path) -> None:
        super().__init__()
        content, antialiased = read_checkpoint(path), name == "st_vgg16"
        state: dict[str, Tensor] = content if isinstance(content, dict) else {}
        number, inputs = 0, 3
        for block, channels in enumerate(CHANNELS, start=1):
            layers: list[nn.Module] = []
            for outputs in channels:
                key = f"net.slice{block}.{number}" if antialiased else f"features.{number}"
                shapes = {f"{key}.weight": (outputs, inputs, 3, 3), f"{key}.bias": (outputs,)}
                found = {k: getattr(state.get(k), "shape", None) for k in shapes}
                if found != shapes:
                    missing = f"{key} is missing or has another shape"
                    raise ArtifactError(f"{Path(path).name} does not hold VGG-16: {missing}")
                layers += [FrozenConv2d(*(state[k].float() for k in shapes)), nn.ReLU()]
                number, inputs = number + 2, outputs
            layers += [MaxBlurPool(channels[-1]) if antialiased else nn.MaxPool2d(2)]
            number += 2 if antialiased else 1
            self.blocks.append(nn.Sequential(*layers))
        self.identity = f"{name}:{tensors_sha256(self.named_buffers())}"


def vgg16(name: str, path: str | Path | None = None) -> Vgg16:
    """Build a teacher from weights on this machine; nothing is ever downloaded.

    Args:
        name: "vgg16" (the paper's, from torchvision's file in the torch hub cache) or "st_vgg16"
            (the anti-aliased trunk of ST-LPIPS, Ghildyal and Liu, ECCV 2022, from the installed
            `stlpips-pytorch`). The latter is built with sides that halve at each pooling, where its
            authors pad by one pixel more.
        path: file of the weights where they are not in their usual place.

    Raises:
        ArtifactError: if the weights are missing or are not what they should be.
        ConfigError: if the name is unknown.
    """
    if name == "vgg16":
        otherwise = 'choose the teacher "st_vgg16"'
        return Vgg16(name, path or hub_file(VGG16_URL, "the teacher VGG-16", otherwise))
    if name != "st_vgg16":
        raise ConfigError(f'the teacher is "vgg16" or "st_vgg16", not {name!r}')
    teacher = Vgg16(name, path or st_lpips_file("vgg_shift_tolerant.pth", f'the teacher "{name}"'))
    if not teacher.identity.endswith(ST_VGG16_SHA256):
        raise ArtifactError(
            "these are not the published weights of ST-LPIPS VGG-16: their sha256 differs"
        )
    return teacher


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


class Cloner(Trunk):
    """VGG-16 with `width` channels, a multiple of 8 (paper: 16), in all but the last layers of
    blocks 2 to 5, no biases; see `normalization` for the norm.

    Normalisation and ReLU follow each convolution; the last of a block has ReLU alone.
    """

    def __init__(self, width: int = 16, norm: str = "batch") -> None:
        super().__init__()
        inputs = 3
        for block, channels in enumerate(CHANNELS):
            layers: list[nn.Module] = []
            for _ in channels[:-1]:
                layers += [_convolution(inputs, width), normalization(norm, width), nn.ReLU()]
                inputs = width
            outputs = channels[-1] if block > 0 else width
            layers += [_convolution(inputs, outputs), nn.ReLU(), nn.MaxPool2d(2)]
            inputs = outputs
            self.blocks.append(nn.Sequential(*layers))

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
        teacher, teacher_weights: name and path of `vgg16`.
        width, norm: see `Cloner`.
        mse_weight: see `losses.feature_discrepancy`.

    Raises:
        ArtifactError: if the teacher's weights are missing or are not what they should be.
        ConfigError: if the teacher or the norm is unknown.
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
        self.teacher = vgg16(teacher, teacher_weights)
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
