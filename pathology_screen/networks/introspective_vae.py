"""The residual variational autoencoder that RA and SI-VAE share: a flat latent vector, and the
encoder's embeddings by name.

Layers follow Soft-IntroVAE (Daniel and Tamar, CVPR 2021,
https://github.com/taldatech/soft-intro-vae-pytorch) as Reversed Autoencoders use it (Bercea et al.,
MIDL 2023, section 3 and Appendix A).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pathology_screen.errors import ConfigError
from pathology_screen.networks.normalization import normalization


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity, or a 1x1 projection where one is needed."""

    def __init__(self, inputs: int, outputs: int, norm: str, project: bool = False) -> None:
        super().__init__()
        self.project: nn.Module = nn.Identity()
        if project or inputs != outputs:
            self.project = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = normalization(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = normalization(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm1(self.conv1(x)), 0.2)
        return F.leaky_relu(self.norm2(self.conv2(y)) + self.project(x), 0.2)


class Encoder(nn.Module):
    """Map an image (B, 1, H, W) to the mean and log-variance of its latent posterior, (B, latent)
    each, and to the pooled feature maps E^1..E^L of Eq. 3, finest first; `extra_projection`
    projects also between two equal channel counts, as released weights do."""

    def __init__(
        self, size: int, channels: Sequence[int], latent: int, norm: str, extra_projection: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels[0], 5, padding=2, bias=False),
            normalization(norm, channels[0]),
            nn.LeakyReLU(0.2),
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(inputs, outputs, norm, extra_projection)
            for inputs, outputs in zip(channels, channels[1:])
        )
        self.tail = ResidualBlock(channels[-1], channels[-1], norm)
        self.fc = nn.Linear(channels[-1] * (size >> len(channels)) ** 2, 2 * latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        y = F.avg_pool2d(self.stem(x), 2)  # (B, C0, H/2, W/2)
        embeddings = [y]
        for block in self.blocks:
            y = F.avg_pool2d(block(y), 2)  # (B, Cl, H/2^(l+1), W/2^(l+1))
            embeddings.append(y)
        mean, log_variance = self.fc(self.tail(y).flatten(1)).chunk(2, dim=1)  # (B, latent) each
        return mean, log_variance, embeddings


class Decoder(nn.Module):
    """Map a latent vector (B, latent) to an image (B, 1, H, W) in [0, 1]; see `Encoder`."""

    def __init__(
        self, size: int, channels: Sequence[int], latent: int, norm: str, extra_projection: bool
    ) -> None:
        super().__init__()
        side = size >> len(channels)
        self.shape = (channels[-1], side, side)
        self.fc = nn.Linear(latent, channels[-1] * side**2)
        widths = [channels[-1], *reversed(channels)]
        self.blocks = nn.ModuleList(
            ResidualBlock(inputs, outputs, norm, extra_projection and index > 0)
            for index, (inputs, outputs) in enumerate(zip(widths, widths[1:]))
        )
        self.tail = ResidualBlock(channels[0], channels[0], norm)
        self.predict = nn.Conv2d(channels[0], 1, 5, padding=2)

    def forward(self, z: Tensor) -> Tensor:
        y = F.relu(self.fc(z)).unflatten(1, self.shape)  # (B, C, h, w)
        for block in self.blocks:
            y = F.interpolate(block(y), scale_factor=2.0, mode="nearest")
        return torch.sigmoid(self.predict(self.tail(y)))  # (B, 1, H, W)


class IntrospectiveVAE(nn.Module):
    """Reconstruct a slice from the posterior mean of its latent vector; RA and SI-VAE train it by
    `IntrospectiveTrainer`.

    Args:
        size: height and width in pixels, a multiple of 2 ** len(channels).
        channels: after each halving (paper: 64, 128, 256, 512, 512).
        norm: "group", "affine" or "batch".
        extra_projection: two more 1x1 projections, as in the released checkpoints.

    Raises:
        ConfigError: if the size is no multiple of 2 ** len(channels), or the norm unfit.
    """

    def __init__(
        self,
        size: int = 128,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        latent: int = 128,
        norm: str = "group",
        extra_projection: bool = False,
    ) -> None:
        super().__init__()
        if norm == "group" and any(width % 8 for width in channels):
            needed = "GroupNorm of 8 needs channels in multiples of 8"
            raise ConfigError(f"{needed}, not {tuple(channels)}")
        if size % 2 ** len(channels):
            multiple = 2 ** len(channels)
            raise ConfigError(f"the image size must be a multiple of {multiple}, not {size}")
        self.latent = latent
        self.encoder = Encoder(size, channels, latent, norm, extra_projection)
        self.decoder = Decoder(size, channels, latent, norm, extra_projection)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of `x`: (B, 1, H, W) in [0, 1] -> the same."""
        return self.decoder(self.encode(x)[0])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return posterior mean and log-variance, each (B, latent)."""
        return self.encoder(x)[:2]

    def embeddings(self, x: Tensor) -> list[Tensor]:
        """Return the pooled feature maps E^1..E^L of Eq. 3, finest first."""
        return self.encoder(x)[2]
