"""Where a small variational autoencoder starts: probabilistic principal component analysis (Tipping and Bishop, Journal
of the Royal Statistical Society B, 1999), the optimum of a linear one (Lucas et al., NeurIPS 2019)."""

from typing import Any

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from pathology_screen.errors import ConfigError


class PrincipalComponents(nn.Module):
    """A fixed linear autoencoder of axial brain slices in one pose; zero until it is fitted.

    A slice x is modelled as mean + W z + noise, with z standard normal and the columns of W the principal components
    of healthy slices, each as long as its standard deviation. Only a box amid the slice, where brains lie, is
    modelled. W has the values of half precision, in which a state dict holds it.

    Args:
        size: height and width of the slices in pixels, a multiple of 16.
        count: number of components.
    """

    mean: Tensor  # TorchScript cannot read annotations that are kept as text: no __future__ import here
    components: Tensor
    variances: Tensor
    noise_variance: Tensor

    def __init__(self, size: int, count: int) -> None:
        super().__init__()
        self.top, self.left = size // 16, size // 8
        self.height, self.width = size - 2 * self.top, size - 2 * self.left
        pixels = self.height * self.width
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(count, pixels))
        self.register_buffer("variances", torch.zeros(count), persistent=False)  # squared lengths of the components
        self.register_buffer("noise_variance", torch.ones(()))

    @property
    def fitted(self) -> bool:
        """Whether there is anything but zeros."""
        return bool(self.mean.any())

    def fit(self, images: Tensor, noise_variance: float) -> None:
        """Take the components from healthy slices and their mirror images.

        Args:
            images: (N, 1, size, size) in [0, 1].
            noise_variance: of a pixel given z.

        Raises:
            ConfigError: if there are fewer slices than half the number of components.
        """
        slices = self._box(torch.cat([images, images.flip(3)]).cpu().float())  # (2 N, P)
        count = len(self.components)
        if len(slices) < count:
            raise ConfigError(f"{count} components take {(count + 1) // 2} training slices or more, not {len(images)}")
        pca = PCA(count, svd_solver="randomized", random_state=0).fit(slices.numpy())
        deviations = torch.from_numpy(pca.explained_variance_).clamp_min(0).sqrt()[:, None]
        self.mean.copy_(torch.from_numpy(pca.mean_))
        self.components.copy_((torch.from_numpy(pca.components_) * deviations).half())
        self.variances.copy_(self.components.square().sum(1))
        self.noise_variance.fill_(noise_variance)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct slices from the posterior mean of z: (B, 1, size, size) in [0, 1] -> the same shape and range."""
        return self.decode(self.encode(x)[0]).clamp(0, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (B, count) and log-variance (count,) of the posterior of z for slices (B, 1, size, size)."""
        total = self.variances + self.noise_variance
        mean = (self._box(x) - self.mean) @ self.components.T / total
        return mean, torch.log(self.noise_variance / total)

    def decode(self, z: Tensor) -> Tensor:
        """Return mean + W z: (B, count) -> (B, 1, size, size), zero outside the box."""
        inside = (self.mean + z @ self.components).view(-1, 1, self.height, self.width)
        return nn.functional.pad(inside, (self.left, self.left, self.top, self.top))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}components"] = destination[f"{prefix}components"].half()

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.variances.copy_(self.components.square().sum(1))

    def _box(self, x: Tensor) -> Tensor:
        """(B, 1, size, size) -> (B, P)."""
        return x[:, :, self.top : self.top + self.height, self.left : self.left + self.width].flatten(1)
