import pytest
import torch

from pathology_screen.errors import ConfigError
from pathology_screen.networks.introspective_vae import IntrospectiveVAE


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("norm", ["group", "affine", "batch"])
def test_paper_profile_has_the_parameters_of_the_listed_layers(norm):
    network = IntrospectiveVAE(norm=norm)
    assert (count(network), count(network.encoder), count(network.decoder)) == (
        29_430_785,
        16_360_896,
        13_069_889,
    )


def test_variants_have_their_parameters():
    assert count(IntrospectiveVAE(extra_projection=True)) == 29_955_073
    assert count(IntrospectiveVAE(latent=256)) == 32_576_769
    compact = IntrospectiveVAE(channels=(16, 32, 64, 128, 128))
    assert (
        sum(tensor.nbytes for tensor in compact.state_dict().values()) < 10e6
    )  # ships under 10 MB


def test_embeddings_are_the_pooled_maps():
    shapes = [tuple(e.shape[1:]) for e in IntrospectiveVAE().embeddings(torch.rand(1, 1, 128, 128))]
    assert shapes == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]


def test_forward_decodes_the_posterior_mean():
    network = IntrospectiveVAE(size=32, channels=(8, 16, 16), latent=5)
    x = torch.rand(2, 1, 32, 32)
    y = network(x)
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    assert torch.equal(y, network.decode(network.encode(x)[0])) and torch.equal(y, network(x))


def test_affine_is_a_batch_norm_with_frozen_statistics():
    torch.manual_seed(0)
    frozen = IntrospectiveVAE(size=16, channels=(8, 8), latent=4, norm="batch").eval()
    affine = IntrospectiveVAE(size=16, channels=(8, 8), latent=4, norm="affine")
    affine.load_state_dict(
        {k: v for k, v in frozen.state_dict().items() if "running" not in k and "num_b" not in k}
    )
    x = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(
        frozen(x), affine(x), rtol=1e-4, atol=1e-4
    )  # BatchNorm divides by sqrt(1 + 1e-5)


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="multiple of 8"):
        IntrospectiveVAE(size=100, channels=(8, 8, 8))
    with pytest.raises(ConfigError, match="multiples of 8"):
        IntrospectiveVAE(channels=(12, 24))
    with pytest.raises(ConfigError, match="norm"):
        IntrospectiveVAE(norm="instance")
