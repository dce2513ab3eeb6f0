"""Random draws that depend on nothing but a seed and a position, so that a resumed or a distributed
run repeats them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import distributed as dist
from torch.utils.data import Sampler

from pathology_screen.errors import ConfigError


def seeded_generator(seed: int, *position: int) -> torch.Generator:
    """Return a CPU generator that is a function of the seed and the position (stream, iteration,
    ...) alone."""
    state = np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) when training is not
    distributed."""
    return (
        (dist.get_rank(), dist.get_world_size())
        if dist.is_available() and dist.is_initialized()
        else (0, 1)
    )


class SeededBatches(Sampler[list[int]]):
    """Yield batches of indices without end, each epoch a new permutation, starting after
    `iteration` batches.

    With several ranks, each takes its part of one batch that is `world size` times as large, so
    that all ranks together see what one process
    with the larger batch would see. The last, incomplete batch of an epoch is dropped.

    Args:
        length: number of samples.
        batch_size: samples a batch and rank.
        seed: fixes every permutation.

    Raises:
        ConfigError: if there are fewer samples than one batch over all ranks needs.
    """

    def __init__(self, length: int, batch_size: int, seed: int = 0) -> None:
        self.rank, self.world_size = rank_and_world_size()
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.iteration = 0
        if not len(self):
            raise ConfigError(
                f"{length} training samples do not fill one batch of {batch_size} x {self.world_size} processes"
            )

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self.length // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, start = divmod(self.iteration, len(self))
        while True:
            order = torch.randperm(
                self.length, generator=seeded_generator(self.seed, 0, epoch)
            ).tolist()
            for index in range(start, len(self)):
                first = (index * self.world_size + self.rank) * self.batch_size
                yield order[first : first + self.batch_size]
            epoch, start = epoch + 1, 0
