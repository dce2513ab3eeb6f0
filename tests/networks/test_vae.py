import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from pathology_screen import losses
from pathology_screen.networks.vae import VAE


def test_last_layer_gives_the_log_of_the_standard_deviation():
    """A port passed the standard deviation on where its logarithm was expected."""
    network, x = VAE(size=8, channels=(8,), latent=2), torch.zeros(3, 1, 8, 8)
    mean, deviation = torch.tensor([1.0, -2.0]), torch.tensor([0.3, -0.7]).exp()
    network.encoder.forward = lambda x: torch.cat([mean, deviation.log()]).expand(len(x), -1)
    network.decoder, noise = nn.Identity(), torch.randn(3, 2)
    z, *posterior = network.sample(x, noise)
    torch.testing.assert_close(z, mean + deviation * noise)
    divergence = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum().expand(3)
    torch.testing.assert_close(losses.kl_divergence(*posterior), divergence)


def test_training_reaches_every_parameter():
    network, x = VAE(size=32, channels=(8, 16, 16), latent=5), torch.rand(2, 1, 32, 32)
    losses.negative_elbo(network.sample(x, torch.randn(2, 5)), x).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
