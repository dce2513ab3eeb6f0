import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from pathology_screen import losses
from pathology_screen.errors import ConfigError
from pathology_screen.networks.vae import VAE


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


class Constant(nn.Module):
    """Gives the same row of values for each sample."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, x):
        return self.values.expand(len(x), -1)


def test_paper_profiles_have_the_parameters_of_the_listed_layers():
    assert count(VAE()) == 8_995_328
    assert count(VAE(latent=256)) == 5_849_600
    assert count(VAE(channels=(16, 32, 64, 128, 128), latent=128)) * 4 < 10e6  # ships under 10 MB


def test_forward_decodes_the_posterior_mean():
    network, x = VAE(size=32, channels=(8, 16, 16), latent=5), torch.rand(2, 1, 32, 32)
    y, (mean, log_variance) = network(x), network.encode(x)
    assert y.shape == x.shape and mean.shape == log_variance.shape == (2, 5)
    assert torch.equal(y, network.decoder(mean)) and torch.equal(y, network.train()(x))


def test_last_layer_gives_the_log_of_the_standard_deviation():
    """A port passed the standard deviation on where its logarithm was expected."""
    network, x = VAE(size=8, channels=(8,), latent=2), torch.zeros(3, 1, 8, 8)
    network.encoder, network.decoder = Constant([1.0, -2.0, 0.3, -0.7]), nn.Identity()
    deviation, noise = torch.tensor([0.3, -0.7]).exp(), torch.randn(3, 2)
    z, mean, log_variance = network.sample(x, noise)
    torch.testing.assert_close(z, torch.tensor([1.0, -2.0]) + deviation * noise)
    torch.testing.assert_close(log_variance, deviation.square().log().expand(3, -1))
    expected = (
        kl_divergence(Normal(torch.tensor([1.0, -2.0]), deviation), Normal(0.0, 1.0))
        .sum()
        .expand(3)
    )
    torch.testing.assert_close(losses.kl_divergence(mean, log_variance), expected)


def test_training_reaches_every_parameter():
    network, x = VAE(size=32, channels=(8, 16, 16), latent=5), torch.rand(2, 1, 32, 32)
    losses.negative_elbo(network.sample(x, torch.randn(2, 5)), x).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_scripted_is_the_same():
    network, x = VAE(size=32, channels=(8, 16, 16), latent=5), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="multiple of 8"):
        VAE(size=100, channels=(8, 8, 8))
