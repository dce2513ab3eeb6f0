"""The normalisation layers that the networks choose from."""

import torch
from torch import Tensor, nn

from pathology_screen.errors import ConfigError


class ChannelAffine(nn.Module):
    """Scale and shift each channel: what a BatchNorm with frozen statistics amounts to."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def normalization(name: str, channels: int) -> nn.Module:
    """Build "group" (GroupNorm of 8), "affine" (no statistics) or "batch" (live BatchNorm)."""
    if name == "group":
        return nn.GroupNorm(8, channels)
    if name not in ("affine", "batch"):
        raise ConfigError(f'norm is "group", "affine" or "batch", not {name!r}')
    return ChannelAffine(channels) if name == "affine" else nn.BatchNorm2d(channels)
