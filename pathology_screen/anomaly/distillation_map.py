"""The anomaly maps and the image score of MKD, which compares features and reconstructs nothing."""

from typing import Any, Literal, get_args

import torch
from monai.networks.utils import eval_mode
from torch import nn

from pathology_screen.anomaly.maps import check_pair, gaussian_blur
from pathology_screen.errors import ConfigError
from pathology_screen.networks.distillation import MultiresolutionDistillation

Kind = Literal["discrepancy", "gradient", "smooth_gradient", "guided_backpropagation"]


class DistillationMap(nn.Module):
    """Show where cloner and teacher disagree (Salehi et al., CVPR 2021); no map is scaled by
    itself.

    Args:
        network: whose output is the map "discrepancy", and whose gradients are the others.
        kind: "discrepancy" (the network's own forward map), or the gradient of the image score with
            respect to the image: "gradient", "smooth_gradient" (mean over 50 noisy copies) or
            "guided_backpropagation", which the source takes.
        sigma: of a Gaussian blur, in pixels of a 128 px image; the source blurs with 4.

    Raises:
        ConfigError: if the kind is unknown.
    """

    def __init__(
        self, network: MultiresolutionDistillation, kind: Kind = "discrepancy", sigma: float = 0.0
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ConfigError(
                f"the kind of an MKD map is one of {', '.join(get_args(Kind))}, not {kind!r}"
            )
        self.network, self.kind, self.sigma = network, kind, sigma

    @property
    def identity(self) -> dict[str, Any]:
        """What the map and the score depend on, ready for JSON."""
        network = self.network
        return {
            "kind": self.kind,
            "sigma": self.sigma,
            "teacher": network.teacher.identity,
            "mse_weight": network.mse_weight,
        }

    @torch.no_grad()
    def forward(self, image: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """Return the maps of images and the network's output for them, which the gradient maps do
        not use; shapes, ranges and errors are those of `AnomalyMap.forward`."""
        x, maps = check_pair(image, prediction)
        network = self.network
        with eval_mode(network):
            if self.kind == "smooth_gradient":  # the same noise for every image of a batch
                parts = x.split(1)
                draws = (torch.Generator().manual_seed(0) for _ in parts)
                maps = torch.cat(list(map(network.smooth_gradient, parts, draws)))
            elif self.kind != "discrepancy":
                maps = network.gradient(x, guided=self.kind == "guided_backpropagation")
        return gaussian_blur(maps, self.sigma) if self.sigma else maps

    @torch.no_grad()
    def score(self, image: torch.Tensor, anomaly_map: torch.Tensor) -> torch.Tensor:
        """Return the image score (B,): the discrepancy of the last three layers."""
        with eval_mode(self.network):  # MONAI's evaluators leave it in training mode by now
            return self.network.score(check_pair(image, anomaly_map)[0])
