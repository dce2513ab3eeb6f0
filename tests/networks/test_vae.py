import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from pathology_screen import losses
from pathology_screen.networks.vae import VAE


class Constant(nn.Module):
    """Gives the same row of values for each sample."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, x):
        return self.values.expand(len(x), -1)


def test_last_layer_gives_the_log_of_the_standard_deviation():
    """A port passed the standard deviation on where its logarithm was expected."""
    network, x = VAE(size=8, channels=(8,), latent=2), torch.zeros(3, 1, 8, 8)
    network.encoder, network.decoder = Constant([1.0, -2.0, 0.3, -0.7]), nn.Identity()
    expected, deviation = torch.tensor([1.0, -2.0]), torch.tensor([0.3, -0.7]).exp()
    noise = torch.randn(3, 2)
    z, mean, log_variance = network.sample(x, noise)
    torch.testing.assert_close(z, expected + deviation * noise)
    torch.testing.assert_close(log_variance, deviation.square().log().expand(3, -1))
    divergence = kl_divergence(Normal(expected, deviation), Normal(0.0, 1.0)).sum().expand(3)
    torch.testing.assert_close(losses.kl_divergence(mean, log_variance), divergence)


def test_training_reaches_every_parameter():
    network, x = VAE(size=32, channels=(8, 16, 16), latent=5), torch.rand(2, 1, 32, 32)
    losses.negative_elbo(network.sample(x, torch.randn(2, 5)), x).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
