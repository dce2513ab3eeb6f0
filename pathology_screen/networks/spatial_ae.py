"""AE-S, the autoencoder with a spatial code (Baur et al., Autoencoders for unsupervised anomaly
segmentation in brain MR images: a comparative study, Medical Image Analysis 2021,
https://github.com/StefanDenn3r/Unsupervised_Anomaly_Detection_Brain_MRI).

Layers follow the PyTorch port of the RA authors, which has no dropout and ends in a sigmoid, but
not its slope of 1, which made an identity of every LeakyReLU: it is 0.3, the default of Keras, in
which the original is written.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pathology_screen.networks.normalization import normalization


class SpatialAutoencoder(nn.Module):
    """Reconstruct a slice from a code that keeps its layout: (B, 128, 8, 8) for the paper's
    channels at 128 px.

    Args:
        channels: channels after each halving, multiples of 8 (paper: 32, 64, 128, 128).
        norm: "group", "affine" (what the frozen BatchNorm of the port amounts to) or "batch".
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128, 128), norm: str = "group") -> None:
        super().__init__()

        def halve(a: int, b: int) -> nn.Sequential:
            return activated(nn.Conv2d(a, b, 5, stride=2, padding=2))

        def double(a: int, b: int) -> nn.Sequential:
            return activated(nn.ConvTranspose2d(a, b, 5, stride=2, padding=2, output_padding=1))

        def activated(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
            return nn.Sequential(layer, normalization(norm, layer.out_channels), nn.LeakyReLU(0.3))

        down, up = [1, *channels], [*reversed(channels), channels[0]]
        self.encoder = nn.Sequential(*map(halve, down, down[1:]))
        self.decoder = nn.Sequential(*map(double, up, up[1:]))
        self.predict = nn.Conv2d(channels[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of `x`: (B, 1, H, W) in [0, 1], sides multiples of 2 **
        len(channels) -> the same shape and range."""
        return torch.sigmoid(self.predict(self.decoder(self.encoder(x))))
