"""Training by several processes, of which each takes its part of a batch."""

from collections.abc import Iterable
from typing import Any

from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import Tensor
from torch import distributed as dist


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) for a single one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def average_over_ranks(gradients: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over all ranks, in place."""
    world_size = rank_and_world_size()[1]
    if world_size > 1:
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= world_size


class AverageGradients:
    """Handler of a SupervisedTrainer: average gradients over the ranks before the step.

    DistributedDataParallel does so for `forward` alone; training calls other methods too.
    """

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.average)

    def average(self, engine: Any) -> None:
        gradients = (parameter.grad for parameter in engine.network.parameters())
        average_over_ranks(gradient for gradient in gradients if gradient is not None)
