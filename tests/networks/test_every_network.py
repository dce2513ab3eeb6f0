"""What holds of every network: parameters, sizes, output, and export."""

import pytest
import torch

from pathology_screen.errors import ConfigError
from pathology_screen.networks.denoising_unet import DenoisingUNet
from pathology_screen.networks.introspective_vae import IntrospectiveVAE
from pathology_screen.networks.spatial_ae import SpatialAutoencoder
from pathology_screen.networks.vae import VAE

NARROW = {
    "ra": lambda: IntrospectiveVAE(size=32, channels=(8, 16, 16), latent=5),
    "vae": lambda: VAE(size=32, channels=(8, 16, 16), latent=5),
    "ae_s": lambda: SpatialAutoencoder(channels=(8, 16)),
    "dae": lambda: DenoisingUNet((8, 16, 32)),
}


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        *[((IntrospectiveVAE, {"norm": n}), 29_430_785) for n in ("group", "affine", "batch")],
        ((IntrospectiveVAE, {"extra_projection": True}), 29_955_073),
        ((IntrospectiveVAE, {"latent": 256}), 32_576_769),
        *[((SpatialAutoencoder, {"norm": n}), 1_359_457) for n in ("group", "affine", "batch")],
        ((VAE, {}), 8_995_328),
        ((VAE, {"latent": 256}), 5_849_600),
        ((DenoisingUNet, {}), 7_701_825),
    ],
)
def test_paper_profiles_have_the_parameters_of_the_listed_layers(network, parameters):
    kind, options = network
    assert sum(one.numel() for one in kind(**options).parameters()) == parameters


def test_compact_profiles_ship_under_10_megabytes():
    for kind in (IntrospectiveVAE, VAE):
        compact = kind(channels=(16, 32, 64, 128, 128), latent=128)
        assert sum(tensor.nbytes for tensor in compact.state_dict().values()) < 10e6


@pytest.mark.parametrize("method", NARROW)
def test_output_is_an_image_of_the_same_shape_in_either_mode_and_scripted(method):
    network, x = NARROW[method](), torch.rand(2, 1, 32, 32)
    y = network(x)
    assert y.shape == x.shape and torch.equal(y, network.eval()(x))
    assert method in ("vae", "dae") or (y.min() >= 0 and y.max() <= 1)
    torch.testing.assert_close(torch.jit.script(network)(x), y)


@pytest.mark.parametrize("method", ["ra", "vae"])
def test_forward_decodes_the_posterior_mean(method):
    network, x = NARROW[method](), torch.rand(2, 1, 32, 32)
    mean, log_variance = network.encode(x)
    assert mean.shape == log_variance.shape == (2, 5)
    assert torch.equal(network(x), network.decoder(mean))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntrospectiveVAE(size=100, channels=(8, 8, 8)), "multiple of 8"),
        (lambda: IntrospectiveVAE(channels=(12, 24)), "multiples of 8"),
        (lambda: IntrospectiveVAE(norm="instance"), "norm"),
        (lambda: VAE(size=100, channels=(8, 8, 8)), "multiple of 8"),
        (lambda: SpatialAutoencoder(norm="instance"), "norm"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
