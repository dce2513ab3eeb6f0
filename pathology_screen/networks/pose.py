"""Find the standard pose of an axial brain slice: a small network that learned to undo random poses, as a spatial
transformer does (Jaderberg et al., NeurIPS 2015)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pathology_screen.bundles import bundle_root
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.files import sha256
from pathology_screen.networks.normalization import normalization
from pathology_screen.networks.weights import load_weights

LARGEST_POSE = (0.3, 0.22, 0.22, 0.2, 0.2)
"""Of the poses learned: angle in radians, shifts along x and y in half sides, logarithms of the scales along x and y,
each in plus or minus this."""


class PoseEstimator(nn.Module):
    """Estimate the pose of brain slices.

    Args:
        size: height and width of the slices in pixels, a multiple of 2 ** (len(channels) + 1).
        channels: channels after each halving of the resolution, which starts at half of `size`; multiples of 8.

    Raises:
        ConfigError: if the size is no such multiple.
    """

    def __init__(self, size: int = 128, channels: Sequence[int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        if size % 2 ** (len(channels) + 1):
            raise ConfigError(f"the image size must be a multiple of {2 ** (len(channels) + 1)}, not {size}")
        self.size = size
        layers: list[nn.Module] = [nn.AvgPool2d(2)]  # (B, 1, size/2, size/2)
        for inputs, outputs in zip([1, *channels], channels):
            for a, stride in ((inputs, 2), (outputs, 1)):
                convolution = nn.Conv2d(a, outputs, 3, stride=stride, padding=1, bias=False)
                layers += [convolution, normalization("group", outputs), nn.LeakyReLU(0.2)]
        side = size >> (len(channels) + 1)
        layers += [nn.Flatten(), nn.Linear(channels[-1] * side**2, 128), nn.LeakyReLU(0.2)]
        last = nn.Linear(128, 5)
        nn.init.zeros_(last.weight)  # begins with the standard pose
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """Estimate the pose of slices (B, 1, H, W) in [0, 1]: (B, 5), the parameters of `pose_matrix`."""
        return 0.2 * self.layers(x)

    @torch.no_grad()
    def locate(self, x: Tensor, steps: int = 2) -> Tensor:
        """Find the standard pose in slices, each step where the last has put it.

        Args:
            x: (B, 1, H, H) in [0, 1], that show as much of the head as the slices learned from, at any resolution.
            steps: number of estimates; each is held within the range of poses that were learned.

        Returns:
            (B, 3, 3), for `resample`: place in the standard pose -> place in the slice.
        """
        x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)
        largest = x.new_tensor(LARGEST_POSE)
        matrix = torch.eye(3).to(x).expand(len(x), 3, 3)
        for _ in range(steps):
            matrix = matrix @ pose_matrix(self(resample(x, matrix)).clamp(-largest, largest))
        return matrix


def pose_matrix(parameters: Tensor) -> Tensor:
    """Turn poses into matrices (B, 3, 3) that scale along x and y, then rotate, then shift places.

    Places are (x to the right, y downwards, 1), from -1 at one edge of the image to 1 at the other.

    Args:
        parameters: (B, 5): angle in radians, shift along x and y in half sides, logarithm of the scale along x and y.
    """
    angle, x, y, log_x, log_y = parameters.T
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    width, height = torch.exp(log_x), torch.exp(log_y)
    rows = [cos * width, -sin * height, x, sin * width, cos * height, y, zero, zero, zero + 1]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def resample(images: Tensor, matrices: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample images at places that matrices give: (B, 1, H, W) and (B, 3, 3), place in the result -> place in the
    image, zeros outside -> (B, 1, H, W)."""
    grid = F.affine_grid(matrices[:, :2], list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


@cache
def standard_pose() -> PoseEstimator:
    """Load the estimator of the bundle `pose`, in evaluation mode; callers share it.

    Raises:
        ArtifactError: if its weights are missing, damaged, or other than those that were shipped.
    """
    weights = bundle_root("pose") / "models" / "model.pt"
    if standard_pose_sha256() != json.loads(weights.with_name("origin.json").read_text("utf-8"))["weights_sha256"]:
        raise ArtifactError("the weights of the bundle pose were altered: install the package anew")
    estimator = PoseEstimator()
    load_weights(estimator, weights)
    return estimator.eval().requires_grad_(False)


@cache
def standard_pose_sha256() -> str:
    """Return the hash of the weights of `standard_pose`.

    Raises:
        ArtifactError: if they are missing.
    """
    weights = bundle_root("pose") / "models" / "model.pt"
    if not weights.is_file():
        raise ArtifactError("the weights of the bundle pose are missing: install the package anew")
    return sha256(weights)
