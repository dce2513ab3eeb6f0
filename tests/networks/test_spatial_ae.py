import torch
from torch import nn

from pathology_screen.networks.spatial_ae import SpatialAutoencoder


def test_code_keeps_the_layout():
    assert SpatialAutoencoder().encoder(torch.rand(2, 1, 128, 128)).shape == (2, 128, 8, 8)
    assert SpatialAutoencoder(channels=(8, 16))(torch.rand(1, 1, 12, 20)).shape == (1, 1, 12, 20)


def test_activations_are_no_identities():
    """A port of this network gave LeakyReLU a slope of 1, which made an affine map of it."""
    activations = [m for m in SpatialAutoencoder().modules() if isinstance(m, nn.LeakyReLU)]
    assert [layer.negative_slope for layer in activations] == [0.3] * 8
