import torch
from torch import nn

from pathology_screen.networks.spatial_ae import SpatialAutoencoder


def test_code_keeps_the_layout():
    assert SpatialAutoencoder().encoder(torch.rand(2, 1, 128, 128)).shape == (2, 128, 8, 8)
    assert SpatialAutoencoder(channels=(8, 16))(torch.rand(1, 1, 12, 20)).shape == (1, 1, 12, 20)


def test_activations_are_no_identities():
    """A port of this network gave LeakyReLU a slope of 1: up to the sigmoid it was an affine map,
    f(a + b) = f(a) + f(b) - f(0)."""
    network = SpatialAutoencoder(channels=(8, 16))
    activations = [layer for layer in network.modules() if isinstance(layer, nn.LeakyReLU)]
    assert [layer.negative_slope for layer in activations] == [0.3] * 4
    a, b = torch.randn(2, 1, 1, 16, 16)
    before = [torch.logit(network(x)) for x in (a + b, a, b, torch.zeros_like(a))]
    assert not torch.allclose(before[0], before[1] + before[2] - before[3], atol=1e-3)
