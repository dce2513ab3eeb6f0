"""Perceptual distance maps, `S_lpips` in Eq. 5, with `lpips` and weights at hand; and the
anti-aliased AlexNet behind ST-LPIPS (Ghildyal and Liu, ECCV 2022), as its weights are."""

import copy
import os
import warnings
from collections import OrderedDict
from itertools import count
from pathlib import Path
from typing import Any

import lpips
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights

from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.networks.weights import (
    hub_file,
    hub_path,
    read_checkpoint,
    st_lpips_file,
    tensors_sha256,
)

MICRO_BATCH = 8
"""Images at a time: on a CPU small batches are faster than one large one."""
SMALLEST_SIDE = 32
"""Below this the deepest layers of the ImageNet networks have no pixels left."""
HUB_WEIGHTS = {
    "squeeze": SqueezeNet1_1_Weights.IMAGENET1K_V1,
    "alex": AlexNet_Weights.IMAGENET1K_V1,
}
"""Backbones whose weights are torchvision's, from the torch hub cache."""
ST_ALEX_SHA256 = "468da9baa421ed6e6532dc864e7e0a0b2e631f775947b0a2a1936056909b27d8"


class PerceptualDistance(nn.Module):
    """A frozen perceptual metric that gives one distance a pixel; `identity`, for that of a
    calibration, names the backbone and the sha256 of its weights."""

    def __init__(self, name: str, metric: nn.Module) -> None:
        super().__init__()
        self.identity = f"{name}:{tensors_sha256(metric.state_dict().items())}"
        # pooling takes a fraction of the time in this layout
        self.metric = metric.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "PerceptualDistance":
        """Stay in evaluation mode, also inside a module that is being trained."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the distance of two batches (B, 1, H, W) in [0, 1]: alike, float32, at least 0."""
        self.metric.to(a.device)
        pairs = zip(a.split(MICRO_BATCH), b.split(MICRO_BATCH))
        return torch.cat([self.metric(x, y) for x, y in pairs])


class SpatialLPIPS(lpips.LPIPS):
    """`lpips.LPIPS` as a map of images in [0, 1]; nothing is drawn or downloaded."""

    def __init__(self, net: str) -> None:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.filterwarnings("ignore", module="torchvision")
            super().__init__(net=net, pretrained=False, pnet_rand=True, spatial=True, verbose=False)
        self.scaling_layer = lpips.ScalingLayer()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if min(a.shape[-2:]) < SMALLEST_SIDE:
            raise ConfigError(
                f"perceptual distances need images of at least {SMALLEST_SIDE} px a side"
            )
        return super().forward(a, b, normalize=True)

    def load(self, state: dict[str, torch.Tensor]) -> "SpatialLPIPS":
        """Take over the weights, all of them."""
        try:
            unknown = self.load_state_dict(state, strict=False, assign=True).unexpected_keys
        except RuntimeError as error:
            raise ArtifactError(
                "the perceptual weights have other shapes than the network"
            ) from error
        missing = [name for name, tensor in self.state_dict().items() if tensor.is_meta]
        if missing or unknown:
            raise ArtifactError(f"the perceptual weights lack {missing} and hold unknown {unknown}")
        return self


class BlurPool(nn.Module):
    """Blur with a 3 x 3 binomial filter, then keep every second pixel (Zhang, ICML 2019)."""

    filt: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(binomial, binomial).repeat(channels, 1, 1, 1)  # (C, 1, 3, 3)
        self.register_buffer("filt", kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=x.shape[1])


class AntialiasedAlexNet(nn.Module):
    """The five ReLU outputs of AlexNet's features, each stride replaced by blur and subsampling:
    (B, 3, H, W), sides of at least 21 px -> (B, C, h, w) with C = 64, 192, 384, 256, 256. Weights
    are named as in `alex_shift_tolerant.pth`: `slice<k>.<layer>.weight`."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(kernel_size=3, stride=1)
        slices: list[list[nn.Module]] = [
            [nn.Conv2d(3, 64, 11, padding=2), BlurPool(64)],
            [pool, BlurPool(64), nn.Conv2d(64, 192, 5, padding=2)],
            [pool, BlurPool(192), nn.Conv2d(192, 384, 3, padding=1)],
            [nn.Conv2d(384, 256, 3, padding=1)],
            [nn.Conv2d(256, 256, 3, padding=1)],
        ]
        number = count()
        for k, layers in enumerate(slices, start=1):
            named = OrderedDict((str(next(number)), layer) for layer in [*layers, nn.ReLU()])
            self.add_module(f"slice{k}", nn.Sequential(named))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for part in self.children():
            x = part(x)
            features.append(x)
        return features


class EmbeddingDistance(nn.Module):
    """Distance between the embeddings of an encoder trained on brains.

    At each layer the embeddings are normalised to unit length at each pixel; their squared
    difference is averaged over channels and enlarged bilinearly; the layers are summed.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder: Any = copy.deepcopy(encoder)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        distance, encoder = torch.zeros_like(a), self.encoder
        for f, g in zip(encoder.embeddings(a), encoder.embeddings(b)):  # each (B, C, h, w)
            squared = (lpips.normalize_tensor(f) - lpips.normalize_tensor(g)).square()
            distance += lpips.upsample(squared.mean(dim=1, keepdim=True), out_HW=a.shape[-2:])
        return distance


def perceptual_distance(
    backbone: str, weights: str | os.PathLike | nn.Module | None = None
) -> PerceptualDistance:
    """Build a perceptual distance from weights on this machine; nothing is ever downloaded.

    Args:
        backbone: "st_alex" (ST-LPIPS on an anti-aliased AlexNet, from the installed
            `stlpips-pytorch`), "squeeze" (LPIPS on SqueezeNet 1.1, as in the paper's Eq. 5, from
            the torch hub cache), "alex" (LPIPS on AlexNet, as in the paper's Table 1, likewise) or
            "encoder" (a brain encoder).
        weights: path of the weights where they are not in their usual place; for "encoder" the
            module itself, copied and frozen, with a method `embeddings(x)` that gives a list of (B,
            C, h, w).

    Raises:
        ArtifactError: if the weights are missing or are not what they should be.
        ConfigError: if the backbone is unknown, or "encoder" comes without a module.

    >>> image = torch.rand(1, 1, 32, 32)
    >>> distance = perceptual_distance("st_alex")
    >>> distance(image, image).max()
    tensor(0.)
    """
    if backbone == "encoder":
        if not isinstance(weights, nn.Module) or not hasattr(weights, "embeddings"):
            raise ConfigError(
                'the backbone "encoder" needs weights=<a module with a method `embeddings`>'
            )
        return PerceptualDistance(backbone, EmbeddingDistance(weights))
    if isinstance(weights, nn.Module) or backbone not in ("st_alex", *HUB_WEIGHTS):
        raise ConfigError(
            f'the perceptual backbone "{backbone}" is unknown or takes no module as weights'
        )
    if backbone != "st_alex":
        return PerceptualDistance(backbone, _lpips(backbone, weights))
    metric = SpatialLPIPS("alex")
    with torch.device("meta"):
        metric.net = AntialiasedAlexNet()
    file = weights or st_lpips_file("alex_shift_tolerant.pth", "ST-LPIPS")
    distance = PerceptualDistance(backbone, metric.load(_read(file)))
    if not distance.identity.endswith(ST_ALEX_SHA256):
        raise ArtifactError(
            "these are not the published weights of ST-LPIPS AlexNet: their sha256 differs"
        )
    return distance


def is_installed(backbone: str) -> bool:
    """Tell whether the weights of one of `HUB_WEIGHTS` are in the torch hub cache."""
    return hub_path(HUB_WEIGHTS[backbone].url).is_file()


def _lpips(backbone: str, file: str | os.PathLike | None) -> SpatialLPIPS:
    needed_by, otherwise = f'LPIPS on "{backbone}"', 'choose perceptual="st_alex"'
    metric = SpatialLPIPS(backbone)
    trunk = _read(file or hub_file(HUB_WEIGHTS[backbone].url, needed_by, otherwise))
    heads = _read(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{backbone}.pth")
    keys = (key for key in metric.state_dict() if key.startswith("net."))
    names = {key: "features." + key.split(".", 2)[2] for key in keys}
    return metric.load({key: trunk[name] for key, name in names.items() if name in trunk} | heads)


def _read(file: str | os.PathLike) -> dict[str, torch.Tensor]:
    try:
        return {name: tensor.float() for name, tensor in read_checkpoint(Path(file)).items()}
    except AttributeError as error:
        raise ArtifactError(f"{Path(file).name} holds no state dict") from error
