"""The anti-aliased AlexNet behind ST-LPIPS (Ghildyal and Liu, ECCV 2022), as its weights are."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

SLICES = (0, 3, 7, 11, 13, 15)
"""Where the layers are cut into the five slices whose outputs are compared."""


class BlurPool(nn.Module):
    """Blur with a 3 x 3 binomial filter, then keep every second pixel (Zhang, ICML 2019)."""

    filt: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer(
            "filt", torch.outer(binomial, binomial).repeat(channels, 1, 1, 1)
        )  # (C, 1, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=x.shape[1])


class AntialiasedAlexNet(nn.Module):
    """The five ReLU outputs of AlexNet's features, each stride replaced by blur and subsampling.

    Takes (B, 3, H, W) with sides of at least 21 px; gives a list of (B, C, h, w) with C = 64, 192,
    384, 256, 256. The names of its weights are those of the file `alex_shift_tolerant.pth`:
    `slice<k>.<layer>.weight`.
    """

    def __init__(self) -> None:
        super().__init__()
        layers = [
            nn.Conv2d(3, 64, kernel_size=11, padding=2),
            BlurPool(64),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=1),
            BlurPool(64),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=1),
            BlurPool(192),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(),
        ]
        for k, (start, stop) in enumerate(zip(SLICES, SLICES[1:]), start=1):
            named = OrderedDict((str(i), layers[i]) for i in range(start, stop))
            self.add_module(f"slice{k}", nn.Sequential(named))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for part in self.children():
            x = part(x)
            features.append(x)
        return features
