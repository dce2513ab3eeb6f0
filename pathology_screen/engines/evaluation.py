"""What validation of a method needs beyond MONAI's evaluator."""

from typing import Any

import torch
from torch import Tensor, nn


def prepare_reconstruction(
    batchdata: dict[str, Any], device: Any, non_blocking: bool, **_: Any
) -> tuple[Tensor, Tensor]:
    """Give each image, (B, 1, H, W), as its own target: for a method that reconstructs."""
    image = batchdata["image"].to(device=device, non_blocking=non_blocking)
    return image, image


def prepare_healthy_map(
    batchdata: dict[str, Any], device: Any, non_blocking: bool, **_: Any
) -> tuple[Tensor, Tensor]:
    """Give each healthy image, (B, 1, H, W), the empty map as its target: the `prepare_batch` of a
    method whose network gives an anomaly map."""
    image = prepare_reconstruction(batchdata, device, non_blocking)[0]
    return image, torch.zeros_like(image)


def improves(current: float, best: float) -> bool:
    """Tell whether an error fell by more than 1e-8 (Appendix A): an evaluator's `metric_cmp_fn`."""
    return current < best - 1e-8


class MeanPerceptualDistance(nn.Module):
    """Mean over the pixels of a distance (a, b) -> (B, 1, H, W), such as
    `anomaly.perceptual_distance(...)`; for `monai.handlers.IgniteMetricHandler(loss_fn=...)`."""

    def __init__(self, distance: nn.Module) -> None:
        super().__init__()
        self.distance = distance

    @torch.no_grad()
    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        maps = self.distance(reconstruction.as_subclass(Tensor), image.as_subclass(Tensor))
        return maps.mean((1, 2, 3))[:, None]
