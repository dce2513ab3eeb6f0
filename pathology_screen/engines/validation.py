"""What validation needs beyond MONAI's evaluator: averaged weights, targets, and a distance."""

from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class AveragedWeights(AveragedModel):
    """Handler of a trainer: its network with the exponential moving average of the weights.

    After n iterations the latest weights count max(1 - decay, 9 / (9 + n)), so that the average
    forgets where training started, however short it is; a decay of 0 follows the network exactly.
    Called, it is the network with the averaged weights; `module` is that network.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        def average(averaged: Tensor, current: Tensor, iterations: Tensor | int) -> Tensor:
            return averaged.lerp(current, max(1 - decay, 9 / (9 + int(iterations))))

        super().__init__(network, avg_fn=average)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.follow)

    def follow(self, engine: Engine) -> None:
        self.update_parameters(engine.network)  # type: ignore[attr-defined]


def prepare_reconstruction(
    batchdata: dict[str, Any], device: Any, non_blocking: bool, **_: Any
) -> tuple[Tensor, Tensor]:
    """Give each image, (B, 1, H, W), as its own target: for a method that reconstructs."""
    image = batchdata["image"].to(device=device, non_blocking=non_blocking)
    return image, image


def prepare_healthy_map(*batch: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """Give each healthy image, (B, 1, H, W), the empty map as its target: the `prepare_batch` of a
    method whose network gives an anomaly map."""
    image = prepare_reconstruction(*batch, **options)[0]
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
