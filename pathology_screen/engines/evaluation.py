"""What validation of a method needs beyond MONAI's evaluator."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import Dataset
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor, nn

from pathology_screen.networks.restoration import Restoration


def in_standard_pose(dataset: Dataset, inferer: Inferer) -> Dataset:
    """Bring the slices of a dataset into the pose in which an inferer will show slices to the network.

    Args:
        dataset: items with `image` (1, H, W).
        inferer: of the bundle; only a `Restoration` with a standard pose changes anything.

    Returns:
        The same items, with the metadata of their images.
    """
    if not isinstance(inferer, Restoration):
        return dataset
    items = [{**dataset[i]} for i in range(len(dataset))]
    for item in items:
        image = convert_to_tensor(item["image"], track_meta=False)
        item["image"] = convert_to_dst_type(inferer.standardize(image[None])[0], item["image"])[0]
    return Dataset(items)


def prepare_reconstruction(
    batchdata: dict[str, Any], device: Any, non_blocking: bool, **_: Any
) -> tuple[Tensor, Tensor]:
    """Give each image, (B, 1, H, W), as its own target: the `prepare_batch` of reconstruction methods."""
    image = batchdata["image"].to(device=device, non_blocking=non_blocking)
    return image, image


def prepare_healthy_map(batchdata: dict[str, Any], device: Any, non_blocking: bool, **_: Any) -> tuple[Tensor, Tensor]:
    """Give each healthy image, (B, 1, H, W), the empty map as its target: the `prepare_batch` of methods whose network
    gives an anomaly map."""
    image = batchdata["image"].to(device=device, non_blocking=non_blocking)
    return image, torch.zeros_like(image)


def improves(current: float, best: float) -> bool:
    """True where an error fell by more than 1e-8 (Appendix A): the `metric_cmp_fn` of an evaluator."""
    return current < best - 1e-8


class MeanPerceptualDistance(nn.Module):
    """Mean of a spatial perceptual distance over the pixels, for `monai.handlers.IgniteMetricHandler(loss_fn=...)`.

    Args:
        distance: (a, b) -> (B, 1, H, W), such as `anomaly.perceptual_distance(...)`.
    """

    def __init__(self, distance: nn.Module) -> None:
        super().__init__()
        self.distance = distance

    @torch.no_grad()
    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        return self.distance(reconstruction.as_subclass(Tensor), image.as_subclass(Tensor)).mean((1, 2, 3))[:, None]
