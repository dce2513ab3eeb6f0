"""The batches of training, their augmentation and noise: functions of the seed and the iteration
alone, so that a resumed run repeats them, and so do several processes, which share each batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Generator, Tensor
from torch import distributed as dist
from torch.utils.data import Sampler

from pathology_screen.errors import ConfigError
from pathology_screen.transforms import RandomAffineBatch


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


def seeded_generator(seed: int, *position: int) -> Generator:
    """Return a CPU generator that is a function of seed and position alone."""
    state = np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))


def normal_noise(count: int, generator: Generator, shape: Sequence[int]) -> Tensor:
    """Draw standard normal numbers: (count, *shape), float32, on the CPU."""
    return torch.randn(count, *shape, generator=generator)


class SeededBatches(Sampler[list[int]]):
    """Yield batches of `batch_size` indices below `length` without end, each epoch a permutation
    of its own, starting after `iteration` batches.

    Each rank takes its part of one batch that is `world_size` times as large: together they see
    what one process with the larger batch sees. The last, incomplete batch of an epoch is dropped.

    Raises:
        ConfigError: if there are fewer samples than one batch over all ranks needs.
    """

    def __init__(self, length: int, batch_size: int, seed: int = 0) -> None:
        self.rank, self.world_size = rank_and_world_size()
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.iteration = 0
        if not len(self):
            raise ConfigError(
                f"{length} training samples do not fill one batch of {batch_size} x "
                f"{self.world_size} processes"
            )

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self.length // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, start = divmod(self.iteration, len(self))
        while True:
            generator = seeded_generator(self.seed, 0, epoch)
            order = torch.randperm(self.length, generator=generator).tolist()
            for index in range(start, len(self)):
                first = (index * self.world_size + self.rank) * self.batch_size
                yield order[first : first + self.batch_size]
            epoch, start = epoch + 1, 0


@dataclass(eq=False)
class TrainingBatch:
    """Augment a batch and draw its noise: the `prepare_batch` of a trainer, and a handler of it,
    which learns the iteration.

    Called, it gives input and target, (B, 1, H, W), channels last; where noise is drawn and not
    used up by `corrupt`, also `(noise,), {}`, as MONAI's trainers take them. Each rank draws for
    the global batch and takes its own part.
    """

    seed: int = 0
    augmentation: RandomAffineBatch | None = None  # of whole batches
    noise: Callable[[int, Generator], Tensor] | None = None  # (count, generator) -> (count, ...)
    corrupt: Callable[[Tensor, Tensor], Tensor] | None = None  # (image, noise) -> network's input
    iteration: int | None = field(default=None, init=False)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self.iteration_started)

    def iteration_started(self, engine: Engine) -> None:
        self.iteration = engine.state.iteration

    def __call__(
        self, batchdata: dict[str, Any], device: Any, non_blocking: bool = False, **_: Any
    ) -> tuple:
        if self.iteration is None:
            raise RuntimeError(
                "TrainingBatch must also be a handler of the trainer, which tells it the iteration"
            )
        image = batchdata["image"].to(device=device, non_blocking=non_blocking)
        rank, world_size = rank_and_world_size()
        total, own = len(image) * world_size, slice(rank * len(image), (rank + 1) * len(image))
        if self.augmentation is not None:
            generator = seeded_generator(self.seed, 2, self.iteration)
            image = self.augmentation.apply(image, self.augmentation.draw(total, generator)[own])
        image = image.contiguous(memory_format=torch.channels_last)
        if self.noise is None:
            return image, image
        noise = self.noise(total, seeded_generator(self.seed, 1, self.iteration))[own].to(image)
        if self.corrupt is None:
            return image, image, (noise,), {}
        return self.corrupt(image, noise), image
