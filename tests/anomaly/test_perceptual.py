"""Perceptual distance maps."""

import sys
from pathlib import Path

import lpips
import pytest
import torch
from torch import nn
from torchvision.models import alexnet, squeezenet1_1

from pathology_screen.anomaly import perceptual_distance
from pathology_screen.anomaly.perceptual import HUB_WEIGHTS, is_installed
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.networks.introspective_vae import IntrospectiveVAE


def make_encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return IntrospectiveVAE(size=48, channels=(8, 16), latent=4, norm="batch")


@pytest.fixture(params=["st_alex", "encoder"])
def distance(request):
    weights = make_encoder() if request.param == "encoder" else None
    return perceptual_distance(request.param, weights)


def test_batches_of_any_size_give_the_same(distance, images, reconstructions):
    a, b = (batch.repeat(5, 1, 1, 1)[:9] for batch in (images, reconstructions))
    single = torch.cat([distance(*pair) for pair in zip(a.split(1), b.split(1))])
    torch.testing.assert_close(distance(a, b), single, rtol=1e-4, atol=1e-6)


def test_stays_frozen_inside_a_module_in_training(distance, images, reconstructions):
    expected = distance(images, reconstructions)
    nn.Sequential(distance).train()
    result = distance(images.requires_grad_(), reconstructions)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    assert not result.requires_grad
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_an_encoder_is_copied_and_told_by_its_weights(images, reconstructions):
    encoder = make_encoder()
    distance = perceptual_distance("encoder", encoder)
    before = distance(images, reconstructions)
    assert distance.identity == perceptual_distance("encoder", make_encoder()).identity
    with torch.no_grad():
        encoder.encoder.stem[0].weight[0] += 1e-6
    assert perceptual_distance("encoder", encoder).identity != distance.identity
    nn.init.ones_(encoder.encoder.stem[0].weight)
    torch.testing.assert_close(distance(images, reconstructions), before, rtol=0, atol=0)
    assert encoder.training and encoder.encoder.stem[0].weight.requires_grad


def test_encoder_distance_by_definition(images, reconstructions):
    encoder, pair = make_encoder().eval(), (0.5 + images / 2, 0.5 + reconstructions / 2)
    expected = torch.zeros_like(images)
    with torch.no_grad():
        for embeddings in zip(*map(encoder.embeddings, pair)):
            f, g = map(nn.functional.normalize, embeddings)
            squared = (f - g).square().mean(1, keepdim=True)
            expected += nn.functional.interpolate(squared, (48, 48), mode="bilinear")
    torch.testing.assert_close(perceptual_distance("encoder", encoder)(*pair), expected)


def test_st_alex_has_the_values_of_the_published_implementation():
    """Reference values from stlpips-pytorch 0.0.2 itself, LPIPS(net="alex",
    variant="shift_tolerant", spatial=True)."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    a = (0.5 + 0.5 * torch.sin(rows / 5) * torch.cos(columns / 7))[None, None]
    b = (0.5 + 0.5 * torch.sin(rows / 5 + 1) * torch.cos(columns / 9))[None, None]
    state = torch.get_rng_state()
    distance = perceptual_distance("st_alex")
    assert torch.equal(state, torch.get_rng_state()) and "stlpips_pytorch" not in sys.modules
    sample = distance(a, b)[0, 0, [0, 20, 40, 63], [0, 30, 60, 95]]
    expected = torch.tensor([0.0258837, 0.031731, 0.0272605, 0.07932])
    torch.testing.assert_close(sample, expected, rtol=1e-4, atol=1e-6)
    assert distance(a, b).mean().item() == pytest.approx(0.0452365, rel=1e-4)
    sha256 = "468da9baa421ed6e6532dc864e7e0a0b2e631f775947b0a2a1936056909b27d8"
    assert distance.identity == f"st_alex:{sha256}"


@pytest.mark.filterwarnings("ignore:.*deprecated since 0.13")
@pytest.mark.parametrize(("backbone", "trunk"), [("squeeze", squeezenet1_1), ("alex", alexnet)])
def test_it_equals_lpips_with_the_same_trunk(backbone, trunk, tmp_path, images, reconstructions):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = lpips.LPIPS(net=backbone, pnet_rand=True, spatial=True, verbose=False)
    trunk = trunk().state_dict()
    for key, value in reference.net.state_dict().items():
        trunk["features." + key.split(".", 1)[1]] = value
    torch.save(trunk, tmp_path / "trunk.pth")
    with torch.no_grad():
        expected = reference(images, reconstructions, normalize=True)
    distance = perceptual_distance(backbone, tmp_path / "trunk.pth")
    torch.testing.assert_close(distance(images, reconstructions), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backbone", ["squeeze", "alex"])
def test_missing_weights_of_torchvision_say_what_to_do(backbone, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not is_installed(backbone)
    with pytest.raises(ArtifactError, match=Path(HUB_WEIGHTS[backbone].url).name) as refusal:
        perceptual_distance(backbone)
    message = str(refusal.value)
    assert "https://download.pytorch.org" in message and "st_alex" in message
    assert str(tmp_path) not in message


def test_wrong_weights_and_choices_are_refused(tmp_path):
    for backbone, named in (("vgg", "vgg"), ("encoder", "embeddings")):
        with pytest.raises(ConfigError, match=named):
            perceptual_distance(backbone)
    path = tmp_path / "weights.pth"
    for content, message in (
        ([1, 2], "no state dict"),
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "lack"),
        ({"features.0.weight": torch.zeros(64, 3, 5, 5)}, "other shapes"),
    ):
        torch.save(content, path)
        with pytest.raises(ArtifactError, match=message):
            perceptual_distance("squeeze", path)
    state = perceptual_distance("st_alex").metric.state_dict()
    torch.save({k: v * 1.01 for k, v in state.items() if not k.startswith("lins.")}, path)
    with pytest.raises(ArtifactError, match="sha256"):
        perceptual_distance("st_alex", path)
