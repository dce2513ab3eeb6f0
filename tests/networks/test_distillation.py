import io
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import vgg16 as torchvision_vgg16

from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.losses import feature_discrepancy
from pathology_screen.networks.distillation import Cloner, GuidedReLU, MultiresolutionDistillation
from pathology_screen.networks.vgg import ST_VGG16_SHA256, VGG16_URL, MaxBlurPool, vgg16

VGG16_FILE = VGG16_URL.rpartition("/")[2]


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MultiresolutionDistillation("st_vgg16").eval()


@pytest.fixture
def agreeing(network):
    """A network whose cloner is the teacher itself."""
    agreeing = MultiresolutionDistillation("st_vgg16").eval()
    agreeing.cloner = network.teacher
    return agreeing


@pytest.fixture
def images():
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def random_vgg16():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision_vgg16(init_weights=True).features


@pytest.fixture(scope="module")
def random_file(random_vgg16, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / VGG16_FILE
    torch.save(torchvision_state(random_vgg16), path)
    return path


def torchvision_state(features, factor=1.0):
    return {f"features.{name}": factor * tensor for name, tensor in features.state_dict().items()}


class TestTeacher:
    def test_vgg16_is_that_of_torchvision(self, random_vgg16, random_file, images):
        expected, x = [], images.expand(-1, 3, -1, -1)
        for layer in random_vgg16:
            x = layer(x)
            expected += [x] if isinstance(layer, nn.MaxPool2d) else []
        result = vgg16("vgg16", random_file)(images.expand(-1, 3, -1, -1))
        shapes = [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
        assert [tuple(f.shape[1:]) for f in result] == shapes
        for a, b in zip(result, expected[1:]):
            torch.testing.assert_close(a, b)

    def test_vgg16_is_found_in_the_torch_hub_cache(self, random_file, tmp_path, monkeypatch):
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        (tmp_path / "hub" / "checkpoints" / VGG16_FILE).symlink_to(random_file)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        assert vgg16("vgg16").identity == vgg16("vgg16", random_file).identity

    def test_st_vgg16_gives_the_values_of_the_published_implementation(self):
        """Reference values from stlpips-pytorch 0.0.2 itself, pooled features of block 2. Its
        poolings pad by a pixel more, so its grid is that of an image moved by 3 pixels."""
        rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
        image = (0.5 + 0.5 * torch.sin(rows / 5) * torch.cos(columns / 7)).roll((3, 3), (0, 1))
        features = vgg16("st_vgg16")(image.expand(1, 3, -1, -1))[0][0]
        result = features[[41, 15, 124, 118]][:, [10, 12], [10, 15]]
        first, second = (0.135260, 0.117458), (0.127921, 0.137892)
        expected = torch.tensor([first, second, (0.120889, 0.112471), (0.101166, 0.105193)])
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)

    def test_blur_pooling_by_hand(self):
        """Maxima of 1 3 3 4, reflected 3 1 3 3 4 3, blurred at every second place."""
        row = torch.tensor([0.0, 1.0, 3.0, 2.0, 4.0]).expand(1, 1, 5, 5)
        blurred = torch.tensor([3 + 2 * 1 + 3, 3 + 2 * 3 + 4]) / 4
        torch.testing.assert_close(MaxBlurPool(1)(row)[0, 0], blurred.expand(2, 2))

    def test_identity_names_the_content_and_not_the_file(self, random_vgg16, random_file, tmp_path):
        assert vgg16("st_vgg16").identity == f"st_vgg16:{ST_VGG16_SHA256}"
        assert "stlpips_pytorch" not in sys.modules  # no foreign code is imported
        first = vgg16("vgg16", random_file).identity
        more = torchvision_state(random_vgg16) | {"classifier.0.bias": torch.zeros(3)}
        torch.save(more, tmp_path / "a.pth")
        assert vgg16("vgg16", tmp_path / "a.pth").identity == first
        torch.save(torchvision_state(random_vgg16, factor=1.01), tmp_path / "b.pth")
        assert vgg16("vgg16", tmp_path / "b.pth").identity != first

    def test_missing_weights_say_what_to_do(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(ArtifactError, match=VGG16_FILE) as refusal:
            vgg16("vgg16")
        message = str(refusal.value)
        assert "https://download.pytorch.org" in message and "st_vgg16" in message
        assert str(tmp_path) not in message

    def test_wrong_weights_are_refused(self, random_vgg16, random_file, tmp_path):
        path = tmp_path / "weights.pth"
        with pytest.raises(ArtifactError, match=r"no weights weights\.pth") as refusal:
            vgg16("vgg16", path)
        assert str(tmp_path) not in str(refusal.value)
        wrong = torchvision_state(random_vgg16) | {"features.0.bias": torch.zeros(3)}
        for content in (wrong, [1, 2]):
            torch.save(content, path)
            with pytest.raises(ArtifactError, match=r"features\.0 is missing or has another shape"):
                vgg16("vgg16", path)
        with pytest.raises(ArtifactError, match=r"slice1\.0 is missing"):
            vgg16("st_vgg16", random_file)
        path.write_bytes(b"not weights")
        with pytest.raises(ArtifactError, match="damaged"):
            vgg16("vgg16", path)
        with pytest.raises(ConfigError, match="vgg19"):
            vgg16("vgg19")

    def test_other_weights_under_the_published_names_are_refused(self, tmp_path):
        places = [(0, 2), (6, 8), (12, 14, 16), (20, 22, 24), (28, 30, 32)]
        names = [f"net.slice{k}.{i}" for k, block in enumerate(places, start=1) for i in block]
        layers = [layer for layer in vgg16("st_vgg16").modules() if hasattr(layer, "weight")]
        state = {f"{name}.weight": layer.weight for name, layer in zip(names, layers)}
        state |= {f"{name}.bias": layer.bias for name, layer in zip(names, layers)}
        torch.save(state, tmp_path / "same.pth")
        assert vgg16("st_vgg16", tmp_path / "same.pth").identity == f"st_vgg16:{ST_VGG16_SHA256}"
        state["net.slice1.0.bias"] = state["net.slice1.0.bias"] + 0.01
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(ArtifactError, match="sha256"):
            vgg16("st_vgg16", tmp_path / "other.pth")


class TestCloner:
    @pytest.mark.parametrize("norm", ["batch", "group", "affine"])
    def test_has_the_parameters_of_the_listed_layers(self, norm):
        assert sum(parameter.numel() for parameter in Cloner(norm=norm).parameters()) == 343_984

    def test_normalisation_precedes_each_relu_but_the_last_of_a_block(self):
        kinds = [[type(layer).__name__ for layer in block] for block in Cloner().blocks]
        normalised, last = ["Conv2d", "BatchNorm2d", "ReLU"], ["Conv2d", "ReLU", "MaxPool2d"]
        assert kinds == [normalised + last] * 2 + [normalised * 2 + last] * 3


def test_feature_discrepancy_by_hand():
    """Orthogonal (1 + lambda * (1 + 1) / 2) and parallel (0 + lambda * (9 + 16) / 2)."""
    cloner = torch.tensor([[[[1.0, 0.0]]], [[[6.0, 8.0]]]])
    teacher = torch.tensor([[[[0.0, 1.0]]], [[[3.0, 4.0]]]])
    for layers in ([cloner], [teacher]), ([cloner, teacher], [teacher, teacher]):
        torch.testing.assert_close(feature_discrepancy(*layers, 0.1), torch.tensor([1.1, 1.25]))


def score_of(features):
    """The discrepancy of the last three layers, written out."""
    pairs = list(zip(*features))[1:]
    cosine = sum(1 - F.cosine_similarity(a.flatten(1), b.flatten(1)) for a, b in pairs)
    return cosine + 0.01 * sum((a - b).square().mean((1, 2, 3)) for a, b in pairs)


class TestNetwork:
    def test_only_the_cloner_is_saved_and_trained(self, network, random_file):
        assert sum(parameter.numel() for parameter in network.parameters()) == 343_984
        assert all(name.startswith("cloner.") for name in network.state_dict())
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer)
        assert buffer.tell() < 2e6
        other = MultiresolutionDistillation(teacher_weights=random_file)
        other.load_state_dict(network.state_dict())
        assert torch.equal(other.cloner.blocks[0][0].weight, network.cloner.blocks[0][0].weight)
        assert other.teacher.identity != network.teacher.identity

    def test_training_reaches_the_cloner_and_not_the_teacher(self, network, images):
        before = [f.clone() for f in network.teacher(images.expand(-1, 3, -1, -1))]
        cloner = Cloner(norm="group")
        loss = feature_discrepancy(cloner(images.expand(-1, 3, -1, -1)), before).mean()
        loss.backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in cloner.parameters())
        assert not any(f.requires_grad for f in before)

    def test_map_by_definition(self, network, images):
        cloner, teacher = network.compare(images)
        expected = torch.zeros_like(images)
        for a, b in list(zip(cloner, teacher))[1:]:
            distance = 1 - F.cosine_similarity(a, b, dim=1)[:, None]
            expected += F.interpolate(distance, (64, 64), mode="bilinear") / 3
        result = network(images)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
        assert result.shape == images.shape and result.min() >= 0 and result.max() <= 1
        assert torch.equal(result, network(images))

    def test_map_is_zero_in_the_part_where_they_agree(self, agreeing):
        class LeftHalf(nn.Module):
            def forward(self, x):
                features = [f.clone() for f in teacher(x)]
                for f in features:
                    f[..., f.shape[-1] // 2 :] = 1
                return features

        teacher = agreeing.teacher
        agreeing.cloner = LeftHalf()
        result = agreeing(torch.rand(1, 1, 128, 128))[0, 0]
        assert not result[:, :48].any()  # bilinear enlargement reaches half a cell, 16 px, across
        assert (result[:, 80:] > 0.1).all()

    def test_two_silent_positions_agree(self, agreeing, images):
        """1 - cosine of two zero vectors would be 1."""
        agreeing.teacher = agreeing.cloner = Zeros()
        assert not agreeing(images).any()

    def test_score_is_the_discrepancy_of_the_last_three_layers(self, network, images):
        expected = score_of(network.compare(images))
        torch.testing.assert_close(network.score(images), expected)

    def test_scripted_is_the_same_and_holds_its_teacher(self, network, images, monkeypatch):
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(network), buffer)
        buffer.seek(0)
        torch.testing.assert_close(torch.jit.load(buffer)(images), network(images))


class Zeros(nn.Module):
    def forward(self, x):
        return [torch.zeros(len(x), 4, 2, 2)] * 4


class TestGradientMaps:
    def test_gradient_by_automatic_differentiation(self, network, images):
        colour = images.repeat(1, 3, 1, 1).requires_grad_()
        score = score_of((network.cloner(colour), network.teacher(colour)))
        (gradient,) = torch.autograd.grad(score.sum(), colour)
        with torch.no_grad():
            result = network.gradient(images)
        assert result.shape == images.shape and not result.requires_grad
        torch.testing.assert_close(
            result, gradient.abs().sum(1, keepdim=True), rtol=1e-3, atol=1e-6
        )
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_guided_relu_passes_back_positive_gradients_alone(self):
        x = torch.tensor([-1.0, 2.0, 3.0, 0.0], requires_grad=True)
        y = GuidedReLU.apply(x)
        y.backward(torch.tensor([1.0, 1.0, -1.0, 1.0]))
        assert y.tolist() == [0.0, 2.0, 3.0, 0.0] and x.grad.tolist() == [0.0, 1.0, 0.0, 0.0]

    def test_guided_changes_the_gradient_and_not_the_features(self, network, images):
        colour = images.expand(-1, 3, -1, -1)
        for a, b in zip(network.cloner.guided(colour), network.cloner(colour)):
            assert torch.equal(a, b)
        guided = network.gradient(images, guided=True)
        assert not torch.allclose(guided, network.gradient(images), rtol=0.1)
        assert torch.equal(guided, network.gradient(images, guided=True))

    def test_smooth_gradient(self, network, images):
        def draw(seed, **options):
            generator = torch.Generator().manual_seed(seed)
            return network.smooth_gradient(images, generator, passes=2, **options)

        torch.testing.assert_close(draw(0, deviation=0.0), network.gradient(images))
        assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
        assert draw(0).min() >= 0
