"""Two controls that learn nothing: what a method must beat before its network deserves any credit."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Template(nn.Module):
    """Take the mean of the healthy training slices for the reconstruction of any slice.

    On aligned brains the difference to an average is a strong detector. Slices of different levels need a template
    each.

    Args:
        training: healthy slices of one level, (N, 1, H, W), N at least 1.
    """

    mean: Tensor

    def __init__(self, training: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", training.mean(dim=0, keepdim=True))  # (1, 1, H, W)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean slice for each of `x`: (B, 1, H, W) -> the same shape."""
        return self.mean.expand_as(x)


class Black(nn.Module):
    """Take a black image for the reconstruction of any slice, so that the anomaly map is the slice itself, equalised
    if the scoring equalises: bright is abnormal (Meissen et al., Challenging Current Semi-supervised Anomaly
    Segmentation Methods for Brain MRI, BrainLes 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros: (B, 1, H, W) -> the same shape."""
        return torch.zeros_like(x)
