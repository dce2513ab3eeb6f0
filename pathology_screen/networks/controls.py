"""Controls that train no network: what a method must beat."""

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from pathology_screen.errors import ConfigError


class TrainingMean(nn.Module):
    """Take the mean of the healthy training slices (N, 1, H, W), N at least 1, for the
    reconstruction of any slice: on aligned brains the difference to it is a strong detector."""

    mean: Tensor

    def __init__(self, training: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", training.mean(dim=0, keepdim=True))  # (1, 1, H, W)

    def forward(self, x: Tensor) -> Tensor:
        return self.mean.expand_as(x)  # (B, 1, H, W)


class PrincipalComponents(nn.Module):
    """Reconstruct a slice as the mean of the healthy training slices plus its projection on their
    principal components: the best linear autoencoder of that latent size.

    Args:
        training: healthy slices, (N, 1, H, W); their mirror images count too.
        count: number of components, at most 2 N.

    Raises:
        ConfigError: if there are fewer slices than half the number of components.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, training: Tensor, count: int = 128) -> None:
        super().__init__()
        if len(training) * 2 < count:
            needed = f"{count} components take {(count + 1) // 2} training slices or more"
            raise ConfigError(f"{needed}, not {len(training)}")
        slices = torch.cat([training, training.flip(3)]).flatten(1).cpu().float()  # (2 N, P)
        pca = PCA(count, svd_solver="randomized", random_state=0).fit(slices.numpy())
        self.register_buffer("mean", torch.from_numpy(pca.mean_).float())  # (P,)
        self.register_buffer("components", torch.from_numpy(pca.components_).float())  # (count, P)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction: (B, 1, H, W) in [0, 1] -> the same shape and range."""
        z = (x.flatten(1) - self.mean) @ self.components.T  # (B, count)
        return (self.mean + z @ self.components).view_as(x).clamp(0, 1)


class ZeroReconstruction(nn.Module):
    """Take a black image for the reconstruction of any slice, so that the anomaly map is the slice
    itself, equalised if the scoring equalises: bright is abnormal (Meissen et al., Challenging
    Current Semi-supervised Anomaly Segmentation Methods for Brain MRI, BrainLes 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)  # (B, 1, H, W)
