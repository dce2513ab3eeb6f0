"""Training by several processes, of which each takes its part of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import Tensor
from torch import distributed as dist


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) when training is not
    distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def average_over_ranks(gradients: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over all ranks, in place; nothing happens in a single
    process."""
    world_size = rank_and_world_size()[1]
    if world_size > 1:
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= world_size


class AverageGradients:
    """Handler of a SupervisedTrainer: average the network's gradients over the ranks before the
    optimizer steps.

    DistributedDataParallel does the same for calls of a network itself; training also calls its
    other methods.
    """

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.average)

    def average(self, engine: Any) -> None:
        gradients = (parameter.grad for parameter in engine.network.parameters())
        average_over_ranks(gradient for gradient in gradients if gradient is not None)
