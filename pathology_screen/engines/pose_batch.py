"""What the pose estimator is trained on: slices in random poses, parts of them hidden."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from pathology_screen.engines.random import rank_and_world_size, seeded_generator
from pathology_screen.engines.training_batch import TrainingBatch
from pathology_screen.networks.pose import LARGEST_POSE, pose_matrix, resample
from pathology_screen.synthetic import hide_parts

SMALL = 0.2
"""Share of the range of poses that small ones come from, so that a second estimate is exact."""

SMALL_PROBABILITY = 0.4

CORNERS = ((-0.7, -0.8, 1.0), (0.7, -0.8, 1.0), (-0.7, 0.8, 1.0), (0.7, 0.8, 1.0), (0.0, 0.0, 1.0))
"""Places (x, y, 1) around and amid a brain in the standard pose, in half sides."""


class PoseBatch(TrainingBatch):
    """Pose slices at random and hide parts of them: the `prepare_batch` of the pose estimator's trainer and evaluator,
    and one of their handlers (see `TrainingBatch`, also for the arguments).

    The slices as they come are in the standard pose.

    Returns:
        When called, posed slices (B, 1, H, W), and their poses, the parameters of `pose_matrix`, (B, 5).
    """

    def __call__(self, batchdata: dict[str, Any], device: Any, non_blocking: bool = False, **_: Any) -> tuple:
        image, _target = super().__call__(batchdata, device, non_blocking)
        iteration = cast(int, self.iteration)  # or the line above has raised
        rank, world_size = rank_and_world_size()
        generator = seeded_generator(self.seed, 3, iteration)
        count = len(image)
        drawn = draw_poses(count * world_size, generator)[rank * count : (rank + 1) * count].to(image)
        posed = resample(image, torch.linalg.inv(pose_matrix(drawn)))
        return hide_parts(posed, seeded_generator(self.seed, 4 + rank, iteration)), drawn


def draw_poses(count: int, generator: Generator) -> Tensor:
    """Draw poses uniform within `LARGEST_POSE`, a share of them small: (count, 5), on the CPU."""
    drawn = (2 * torch.rand(count, 5, generator=generator) - 1) * torch.tensor(LARGEST_POSE)
    small = torch.rand(count, 1, generator=generator) < SMALL_PROBABILITY
    return torch.where(small, SMALL * drawn, drawn)


def displacement(estimated: Tensor, true: Tensor, size: int = 128) -> Tensor:
    """Mean distance in pixels between where two poses put `CORNERS`: (B, 5) twice -> (B,)."""
    places = torch.tensor(CORNERS).to(true).T  # (3, 5)
    difference = (pose_matrix(estimated) - pose_matrix(true)) @ places  # (B, 3, 5), in half sides
    return (size / 2 * difference[:, :2]).norm(dim=1).mean(dim=1)


def pose_loss(estimated: Tensor, true: Tensor) -> Tensor:
    """Mean of `displacement` over a batch: (B, 5) twice -> ()."""
    return displacement(estimated, true).mean()


class PoseDisplacement(nn.Module):
    """`displacement` as (B, 1), for `monai.handlers.IgniteMetricHandler(loss_fn=...)`."""

    def forward(self, estimated: Tensor, true: Tensor) -> Tensor:
        return displacement(estimated, true)[:, None]
