"""The paper's augmentation, for a whole batch at once and from an explicit generator."""

import math

import torch
from torch.nn import functional as F

DRAWN = (22, 128)
"""Numbers that are drawn a slice, of which six are used; so a seed means what it always did."""


class RandomAffineBatch:
    """Rotate, shift, scale, flip (paper, Appendix B), and if asked vary the contrast.

    Drawing and applying are separate, so that in distributed training every rank draws the same
    numbers for the global batch and applies its own part:

        parameters = augment.draw(global_batch_size, generator)
        images = augment.apply(images, parameters[rank::world_size])

    Options change what the numbers mean, never how many are drawn.

    Args:
        rotation_degrees: angle uniform in plus or minus this.
        translation: shift uniform in plus or minus this fraction of the side, along each axis.
        scale: range of a uniform factor; above 1 enlarges.
        flip: probability of a left-right flip, after the rest.
        contrast: range of a log-uniform exponent on intensities in [0, 1]; (1, 1) changes nothing.
    """

    def __init__(
        self,
        rotation_degrees: float = 10.0,
        translation: float = 0.1,
        scale: tuple[float, float] = (0.9, 1.1),
        flip: float = 0.5,
        contrast: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.rotation_degrees, self.translation = rotation_degrees, translation
        self.scale, self.flip, self.contrast = scale, flip, contrast

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draw one row of numbers in [0, 1) for each of `count` slices: (count, 6), on the CPU."""
        rows, _ = (torch.rand(count, width, generator=generator) for width in DRAWN)
        return rows[:, :6]

    def theta(self, parameters: torch.Tensor) -> torch.Tensor:
        """Turn rows into sampling matrices (n, 2, 3): place in the output -> in the input.

        Places are (x to the right, y downwards), from -1 at one edge of the image to 1 at the
        other, as in `torch.nn.functional.affine_grid`. A positive angle turns the image
        counter-clockwise as displayed.
        """
        u = parameters.double().T
        angle = math.radians(self.rotation_degrees) * (2 * u[0] - 1)
        shift = 2 * self.translation * (2 * u[1:3] - 1)  # (2, n); the side is 2 long
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * u[3]
        mirror = 1 - 2 * (u[4] < self.flip).double()
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        rows = torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)
        inverse = torch.stack(rows, -2)  # (n, 2, 2)
        offset = -inverse @ shift.T[..., None]  # (n, 2, 1)
        flipped = inverse * torch.stack([mirror, torch.ones_like(mirror)], -1)[:, None]
        return torch.cat([flipped, offset], dim=-1)

    def apply(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Augment slices (n, 1, H, H) in [0, 1] with n drawn rows; zeros come in from outside."""
        parameters = parameters.to(images.device)
        theta = self.theta(parameters).to(images.dtype)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        out = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
        if tuple(self.contrast) != (1.0, 1.0):
            low, high = (math.log(bound) for bound in self.contrast)
            exponent = torch.exp(low + (high - low) * parameters[:, 5].to(images.dtype))
            out = out.clamp(0, 1) ** exponent[:, None, None, None]
        return out

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw and apply: (n, 1, H, H) -> (n, 1, H, H)."""
        return self.apply(images, self.draw(len(images), generator))
