"""VGG-16 as a frozen teacher: the trunk of Simonyan and Zisserman (ICLR 2015) or its anti-aliased
form (Zhang, ICML 2019), with ImageNet weights that are already on this machine."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VGG16_Weights

from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.networks.weights import (
    hub_file,
    read_checkpoint,
    st_lpips_file,
    tensors_sha256,
)

CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions of each block; a pooling follows each block."""

VGG16_URL = VGG16_Weights.IMAGENET1K_V1.url
ST_VGG16_SHA256 = "1ec8e36b36783a16fd557d65174a8c0b2f7c4f7dc4768e388628ea6aab3466f9"


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
        self.register_buffer(
            "filter", torch.outer(binomial, binomial).repeat(channels, 1, 1, 1), persistent=False
        )  # (C, 1, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(F.max_pool2d(x, 2, stride=1), (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.filter, stride=2, groups=x.shape[1])


class Vgg16(nn.Module):
    """The convolutional blocks of VGG-16, frozen: no parameters, but saved in TorchScript.

    Args:
        weights: weight (C, C', 3, 3) and bias (C,) of each of the 13 convolutions.
        antialiased: pool with `MaxBlurPool` instead of the maximum of 2x2 pixels.
        name: start of the identity.

    Attributes:
        identity: name and sha256 of the weights, for the identity of a calibration.
    """

    def __init__(
        self, weights: Iterable[tuple[Tensor, Tensor]], antialiased: bool, name: str
    ) -> None:
        super().__init__()
        convolutions = (FrozenConv2d(weight.float(), bias.float()) for weight, bias in weights)
        self.blocks = nn.ModuleList()
        for channels in CHANNELS:
            layers: list[nn.Module] = []
            for _ in channels:
                layers += [next(convolutions), nn.ReLU()]
            layers += [MaxBlurPool(channels[-1]) if antialiased else nn.MaxPool2d(2)]
            self.blocks.append(nn.Sequential(*layers))
        self.identity = f"{name}:{tensors_sha256(self.named_buffers())}"

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return what the poolings of blocks 2 to 5 give: (B, 3, H, W), sides multiples of 32 ->
        (B, C, h, w) with C = 128, 256, 512, 512 and sides of 1/4, 1/8, 1/16, 1/32."""
        pooled: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            pooled.append(x)
        return pooled[1:]


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
    if name not in ("vgg16", "st_vgg16"):
        raise ConfigError(f'the teacher is "vgg16" or "st_vgg16", not {name!r}')
    if name == "vgg16":
        file = path or hub_file(VGG16_URL, "the teacher VGG-16", 'choose the teacher "st_vgg16"')
        return Vgg16(_read(file, "features.{layer}", pooling_layers=1), False, name)
    file = path or st_lpips_file("vgg_shift_tolerant.pth", 'the teacher "st_vgg16"')
    teacher = Vgg16(_read(file, "net.slice{block}.{layer}", pooling_layers=2), True, name)
    if not teacher.identity.endswith(ST_VGG16_SHA256):
        raise ArtifactError(
            "these are not the published weights of ST-LPIPS VGG-16: their sha256 differs"
        )
    return teacher


def _read(path: str | Path, pattern: str, pooling_layers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield weight and bias of each convolution, which the pattern names by block and place."""
    content = read_checkpoint(path)
    state: dict[str, Tensor] = content if isinstance(content, dict) else {}
    layer, inputs = 0, 3
    for block, channels in enumerate(CHANNELS, start=1):
        for outputs in channels:
            name = pattern.format(block=block, layer=layer)
            expected = {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
            if any(getattr(state.get(k), "shape", None) != shape for k, shape in expected.items()):
                raise ArtifactError(
                    f"{Path(path).name} does not hold VGG-16: {name} is missing or has another "
                    "shape"
                )
            yield state[f"{name}.weight"], state[f"{name}.bias"]
            layer, inputs = layer + 2, outputs
        layer += pooling_layers
