"""VAE, the variational autoencoder with a dense latent vector (Zimmerer et al., Unsupervised
anomaly localization using variational auto-encoders, MICCAI 2019,
https://github.com/MIC-DKFZ/vae-anomaly-experiments), with its last layer doubled for 128 px as in
Appendix A of the RA paper."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pathology_screen.errors import ConfigError


class VAE(nn.Module):
    """Reconstruct a slice from the posterior mean of its latent vector (paper: of 512).

    Convolutions without bias or normalisation, LeakyReLU of slope 0.01, linear output.

    Args:
        size: height and width in pixels, a multiple of 2 ** len(channels).
        channels: channels after each halving (paper: 16, 32, 64, 256, 256).

    Raises:
        ConfigError: if the size is no multiple of 2 ** len(channels).
    """

    def __init__(
        self, size: int = 128, channels: Sequence[int] = (16, 32, 64, 256, 256), latent: int = 512
    ) -> None:
        super().__init__()
        if size % 2 ** len(channels):
            multiple = 2 ** len(channels)
            raise ConfigError(f"the image size must be a multiple of {multiple}, not {size}")
        self.latent = latent
        side, down, up = size >> len(channels), [1, *channels], [*reversed(channels), 1]
        encoder: list[nn.Module] = []
        for a, b in zip(down, down[1:]):
            encoder += [nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False), nn.LeakyReLU()]
        encoder += [nn.Conv2d(down[-1], 2 * latent, side, bias=False), nn.Flatten()]
        decoder: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1))]
        decoder += [nn.ConvTranspose2d(latent, up[0], side, bias=False)]
        for a, b in zip(up, up[1:]):
            decoder += [nn.LeakyReLU(), nn.ConvTranspose2d(a, b, 4, 2, padding=1, bias=False)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct `x` from its posterior mean: (B, 1, H, W) in [0, 1] -> the same, about."""
        return self.decoder(self.encode(x)[0])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return posterior mean and log-variance, each (B, latent); the last layer gives the
        logarithm of the standard deviation, half the log-variance."""
        mean, log_deviation = self.encoder(x).chunk(2, dim=1)
        return mean, 2 * log_deviation

    def sample(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct from a sample of the posterior by standard normal noise (B, latent): the
        output (B, 1, H, W), mean and log-variance, for `losses.negative_elbo`."""
        mean, log_variance = self.encode(x)
        return self.decoder(mean + torch.exp(0.5 * log_variance) * noise), mean, log_variance
