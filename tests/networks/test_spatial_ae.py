import pytest
import torch
from torch import nn

from pathology_screen.errors import ConfigError
from pathology_screen.networks.spatial_ae import SpatialAutoencoder


@pytest.mark.parametrize("norm", ["group", "affine", "batch"])
def test_paper_profile_has_the_parameters_of_the_listed_layers(norm):
    assert (
        sum(parameter.numel() for parameter in SpatialAutoencoder(norm=norm).parameters())
        == 1_359_457
    )


def test_code_keeps_the_layout():
    network, x = SpatialAutoencoder(), torch.rand(2, 1, 128, 128)
    assert network.encoder(x).shape == (2, 128, 8, 8)
    y = network(x)
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    assert torch.equal(y, network(x))
    assert SpatialAutoencoder(channels=(8, 16))(torch.rand(1, 1, 12, 20)).shape == (1, 1, 12, 20)


def test_activations_are_no_identities():
    """A port of this network gave LeakyReLU a slope of 1: up to the sigmoid it was an affine map,
    f(a + b) = f(a) + f(b) - f(0)."""
    network = SpatialAutoencoder(channels=(8, 16))
    slopes = [
        layer.negative_slope for layer in network.modules() if isinstance(layer, nn.LeakyReLU)
    ]
    assert slopes == [0.3] * 4
    a, b = torch.randn(2, 1, 1, 16, 16)
    before = [torch.logit(network(x)) for x in (a + b, a, b, torch.zeros_like(a))]
    assert not torch.allclose(before[0], before[1] + before[2] - before[3], atol=1e-3)


def test_scripted_is_the_same():
    network, x = SpatialAutoencoder(channels=(8, 16), norm="group"), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="norm"):
        SpatialAutoencoder(norm="instance")
