"""How a reconstructing network is applied to a slice that may hold an anomaly: in the standard pose, and repeatedly,
so that what does not look healthy has no say in its own reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from pathology_screen.errors import ConfigError
from pathology_screen.networks.pose import resample, standard_pose, standard_pose_sha256

BLUR = 3.0
"""Standard deviation in pixels of a 128 px slice over which a difference is averaged before it counts."""

SOFTNESS = 8.0
"""The doubt around the tolerance, as the tolerance's divisor."""


class Restoration(Inferer):
    """Reconstruct slices as a network's healthy prior would have them.

    The slice is brought into the standard pose, and the result is taken back. A first pass reconstructs it. Before each
    further pass, pixels whose blurred absolute difference from the reconstruction exceeds the tolerance are replaced by
    the reconstruction, with weights sigmoid(8 (1 - difference / tolerance)), and the network reconstructs the result:
    an iteratively reweighted fit, which discounts anomalies as robust regression discounts outliers. (Masking by a
    first anomaly map and painting anew is the idea of Bercea et al., PHANES, MICCAI 2023.)

    Args:
        pose: whether to reconstruct in the standard pose (`networks.pose`).
        passes: how often the network is applied, at least 1; 1 is the plain reconstruction.
        tolerance: difference of intensity, on [0, 1], that healthy brains show.

    Raises:
        ConfigError: for fewer than 1 pass, or a tolerance of 0 or less.
    """

    def __init__(self, pose: bool = True, passes: int = 16, tolerance: float = 0.12) -> None:
        super().__init__()
        if passes < 1 or tolerance <= 0:
            raise ConfigError(f"restoring takes 1 pass or more and a tolerance above 0, not {passes} and {tolerance}")
        self.pose, self.passes, self.tolerance = pose, passes, tolerance

    @property
    def identity(self) -> dict[str, Any]:
        """What a reconstruction depends on beside the network, ready for JSON; part of a calibration's identity."""
        pose = standard_pose_sha256() if self.pose else None
        return {"pose": pose, "passes": self.passes, "tolerance": self.tolerance}

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Reconstruct slices (B, 1, H, W) in [0, 1] -> the same shape and range, zero outside the standard field of
        view."""
        images = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
        if not self.pose:
            return self._restore(images, network)
        standard, matrices = self._standard(images)
        restored = self._restore(standard, network)
        return resample(restored, torch.linalg.inv(matrices), "bicubic").clamp(0, 1)

    def standardize(self, images: Tensor) -> Tensor:
        """Bring slices (B, 1, H, W) into the standard pose, or leave them where none is wanted."""
        return self._standard(images)[0] if self.pose else images

    @torch.no_grad()
    def _standard(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Slices in the standard pose, and the matrices that took them there."""
        matrices = standard_pose().to(images.device).locate(images)
        return resample(images, matrices, "bicubic").clamp(0, 1), matrices

    def _restore(self, images: Tensor, network: Callable[..., Tensor]) -> Tensor:
        reconstruction = network(images)
        blur = BLUR * images.shape[-1] / 128
        side = 2 * round(2 * blur) + 1
        for _ in range(self.passes - 1):
            difference = gaussian_blur((images - reconstruction).abs(), [side, side], [blur, blur])
            trust = torch.sigmoid(SOFTNESS * (1 - difference / self.tolerance))
            reconstruction = network(trust * images + (1 - trust) * reconstruction)
        return reconstruction
