"""What every way of scoring offers, whatever the method."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Scoring(Protocol):
    """From an image and what a network makes of it to an anomaly map and an image score
    (`AnomalyMap`, `DistillationMap`)."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the values depend on, ready for JSON; part of the identity of a calibration."""

    def __call__(self, image: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """Anomaly maps (B, 1, H, W), at least 0, of images and the network's output for them, the
        same shape."""

    def score(self, image: torch.Tensor, anomaly_map: torch.Tensor) -> torch.Tensor:
        """Image scores (B,) of images (B, 1, H, W) and their anomaly maps."""
