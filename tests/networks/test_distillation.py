"""MKD: its teacher has the published values, its maps and scores those of their definition."""

import io
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import vgg16 as torchvision_vgg16

from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.losses import feature_discrepancy
from pathology_screen.networks.distillation import (
    ST_VGG16_SHA256,
    VGG16_URL,
    Cloner,
    GuidedReLU,
    MultiresolutionDistillation,
    vgg16,
)
from pathology_screen.networks.weights import read_checkpoint, st_lpips_file

VGG16_FILE = VGG16_URL.rpartition("/")[2]


@pytest.fixture(scope="module")
def random_vgg16():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision_vgg16(init_weights=True).features


@pytest.fixture(scope="module")
def state(random_vgg16):
    return {f"features.{name}": tensor for name, tensor in random_vgg16.state_dict().items()}


@pytest.fixture(scope="module")
def random_file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / VGG16_FILE
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MultiresolutionDistillation("st_vgg16").eval()


@pytest.fixture
def images():
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


class TestTeacher:
    def test_is_that_of_torchvision(self, random_vgg16, random_file, images):
        expected, x = [], images.expand(-1, 3, -1, -1)
        result = vgg16("vgg16", random_file)(x)
        for layer in random_vgg16:
            x = layer(x)
            expected += [x] if isinstance(layer, nn.MaxPool2d) else []
        torch.testing.assert_close(result, expected[1:])

    def test_has_the_values_of_the_published_implementation(self):
        """Reference values from stlpips-pytorch 0.0.2 itself, pooled features of block 2. Its
        poolings pad by a pixel more, so its grid is that of an image moved by 3 pixels."""
        rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
        image = (0.5 + 0.5 * torch.sin(rows / 5) * torch.cos(columns / 7)).roll((3, 3), (0, 1))
        features = vgg16("st_vgg16")(image.expand(1, 3, -1, -1))[0][0]
        result = features[[41, 15, 124, 118]][:, [10, 12], [10, 15]]
        first, second = (0.135260, 0.117458), (0.127921, 0.137892)
        expected = torch.tensor([first, second, (0.120889, 0.112471), (0.101166, 0.105193)])
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)

    def test_identity_names_the_content_and_not_the_file(self, state, random_file, tmp_path):
        assert vgg16("st_vgg16").identity == f"st_vgg16:{ST_VGG16_SHA256}"
        assert "stlpips_pytorch" not in sys.modules  # no foreign code is imported
        first, path = vgg16("vgg16", random_file).identity, tmp_path / "a.pth"
        for change, same in (("classifier.0.bias", True), ("features.0.bias", False)):
            torch.save(state | {change: torch.ones(64)}, path)
            assert (vgg16("vgg16", path).identity == first) == same

    def test_is_found_in_the_torch_hub_cache_or_says_what_to_do(
        self, random_file, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(ArtifactError, match=VGG16_FILE) as refusal:
            vgg16("vgg16")
        message = str(refusal.value)
        assert "https://download.pytorch.org" in message and "st_vgg16" in message
        assert str(tmp_path) not in message
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        (tmp_path / "hub" / "checkpoints" / VGG16_FILE).symlink_to(random_file)
        assert vgg16("vgg16").identity == vgg16("vgg16", random_file).identity

    def test_wrong_weights_are_refused(self, state, random_file, tmp_path):
        path = tmp_path / "weights.pth"
        for content in (state | {"features.0.bias": torch.zeros(3)}, [1, 2]):
            torch.save(content, path)
            with pytest.raises(ArtifactError, match=r"features\.0 is missing or has another shape"):
                vgg16("vgg16", path)
        with pytest.raises(ArtifactError, match=r"slice1\.0 is missing"):
            vgg16("st_vgg16", random_file)
        with pytest.raises(ConfigError, match="vgg19"):
            vgg16("vgg19")

    def test_other_weights_under_the_published_names_are_refused(self, tmp_path):
        state = read_checkpoint(st_lpips_file("vgg_shift_tolerant.pth", "this test"))
        torch.save(state | {"net.slice1.0.bias": torch.zeros(64)}, tmp_path / "weights.pth")
        with pytest.raises(ArtifactError, match="sha256"):
            vgg16("st_vgg16", tmp_path / "weights.pth")


@pytest.mark.parametrize("norm", ["batch", "group", "affine"])
def test_cloner_has_the_listed_layers(norm):
    cloner = Cloner(norm=norm)
    assert sum(parameter.numel() for parameter in cloner.parameters()) == 343_984
    kind = {"batch": "BatchNorm2d", "group": "GroupNorm", "affine": "ChannelAffine"}[norm]
    normalised, last = ["Conv2d", kind, "ReLU"], ["Conv2d", "ReLU", "MaxPool2d"]
    kinds = [[type(layer).__name__ for layer in block] for block in cloner.blocks]
    assert kinds == [normalised + last] * 2 + [normalised * 2 + last] * 3


def test_only_the_cloner_is_saved_and_trained(network, images):
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    assert all(name.startswith("cloner.") for name in network.state_dict())
    assert buffer.tell() < 2e6
    other = MultiresolutionDistillation("st_vgg16", norm="group")
    cloner, teacher = other.compare(images)
    feature_discrepancy(cloner, teacher).mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in other.parameters())
    assert not any(f.requires_grad for f in teacher)


def test_map_by_definition_also_scripted(network, images):
    expected = torch.zeros_like(images)
    for a, b in list(zip(*network.compare(images)))[1:]:
        distance = 1 - F.cosine_similarity(a, b, dim=1)[:, None]
        expected += F.interpolate(distance, (64, 64), mode="bilinear") / 3
    result, buffer = network(images), io.BytesIO()
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert result.min() >= 0 and result.max() <= 1
    torch.jit.save(torch.jit.script(network), buffer)  # with its teacher
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(images), result)


class Zeros(nn.Module):
    def forward(self, x):
        return [torch.zeros(len(x), 4, 2, 2)] * 4


def test_two_silent_positions_agree(images):
    """1 - cosine of two zero vectors would be 1."""
    silent = MultiresolutionDistillation("st_vgg16")
    silent.teacher = silent.cloner = Zeros()
    assert not silent(images).any()


def test_score_and_gradient_are_those_of_the_discrepancy_of_the_last_three_layers(network, images):
    colour = images.repeat(1, 3, 1, 1).requires_grad_()
    score = 0
    for a, b in list(zip(network.cloner(colour), network.teacher(colour)))[1:]:
        cosine = F.cosine_similarity(a.flatten(1), b.flatten(1))
        score = score + 1 - cosine + 0.01 * (a - b).square().mean((1, 2, 3))
    torch.testing.assert_close(network.score(images), score)
    (gradient,) = torch.autograd.grad(score.sum(), colour)
    with torch.no_grad():
        result = network.gradient(images)
    assert not result.requires_grad
    torch.testing.assert_close(result, gradient.abs().sum(1, keepdim=True), rtol=1e-3, atol=1e-6)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_guided_back_propagation_passes_positive_gradients_alone(network, images):
    x = torch.tensor([-1.0, 2.0, 3.0, 0.0], requires_grad=True)
    y = GuidedReLU.apply(x)
    y.backward(torch.tensor([1.0, 1.0, -1.0, 1.0]))
    assert y.tolist() == [0.0, 2.0, 3.0, 0.0] and x.grad.tolist() == [0.0, 1.0, 0.0, 0.0]
    colour = images.expand(-1, 3, -1, -1)
    for a, b in zip(network.cloner.guided(colour), network.cloner(colour)):
        assert torch.equal(a, b)
    guided = network.gradient(images, guided=True)
    assert not torch.allclose(guided, network.gradient(images), rtol=0.1)


def test_smooth_gradient(network, images):
    def draw(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        return network.smooth_gradient(images, generator, passes=2, **options)

    torch.testing.assert_close(draw(0, deviation=0.0), network.gradient(images))
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    assert draw(0).min() >= 0
