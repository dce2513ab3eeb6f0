import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pathology_screen.losses import feature_discrepancy
from pathology_screen.networks.distillation import Cloner, GuidedReLU, MultiresolutionDistillation


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
