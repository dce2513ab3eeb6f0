"""Augmentation and noise of a training batch, the same whether a run is resumed, distributed, or
neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Generator, Tensor

from pathology_screen.engines.random import rank_and_world_size, seeded_generator
from pathology_screen.transforms import RandomAffineBatch


def normal_noise(count: int, generator: Generator, shape: Sequence[int]) -> Tensor:
    """Draw standard normal numbers: (count, *shape), float32, on the CPU."""
    return torch.randn(count, *shape, generator=generator)


class TrainingBatch:
    """Augment a batch and draw its noise: the `prepare_batch` of a trainer, and one of its
    handlers.

    Every draw is a function of the seed and the iteration alone. Each rank draws for the global
    batch and takes its own part. As a handler it learns the iteration, so it must also be attached
    to the trainer.

    Args:
        seed: of all draws.
        augmentation: of whole batches; None for none.
        noise: (count, generator) -> (count, ...); None for none.
        corrupt: (image, noise) -> what the network sees, for a denoising network. Without it, the
            noise is handed to the trainer's inferer.

    Returns:
        When called, input and target, (B, 1, H, W), channels last; where noise is drawn and not
        used up by `corrupt`, also `(noise,), {}`, as MONAI's trainers take them.
    """

    def __init__(
        self,
        seed: int = 0,
        augmentation: RandomAffineBatch | None = None,
        noise: Callable[[int, Generator], Tensor] | None = None,
        corrupt: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.seed, self.augmentation, self.noise, self.corrupt = seed, augmentation, noise, corrupt
        self.iteration: int | None = None

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
        count = len(image)
        part = slice(rank * count, (rank + 1) * count)
        if self.augmentation is not None:
            parameters = self.augmentation.draw(
                count * world_size, seeded_generator(self.seed, 2, self.iteration)
            )
            image = self.augmentation.apply(image, parameters[part])
        image = image.contiguous(memory_format=torch.channels_last)
        if self.noise is None:
            return image, image
        noise = self.noise(count * world_size, seeded_generator(self.seed, 1, self.iteration))[
            part
        ].to(image)
        return (
            (image, image, (noise,), {})
            if self.corrupt is None
            else (self.corrupt(image, noise), image)
        )
