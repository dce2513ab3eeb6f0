"""The maps and the score of MKD."""

import json

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from pathology_screen.anomaly import DistillationMap
from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.networks.distillation import GuidedReLU, MultiresolutionDistillation

KINDS = ["discrepancy", "gradient", "smooth_gradient", "guided_backpropagation"]


class Features(nn.Module):
    """Four small layers in the place of a VGG-16, as cloner or teacher."""

    def __init__(self, seed, scale=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = [(4, 3, 4, 4), (6, 4, 2, 2), (6, 6, 2, 2), (6, 6, 2, 2)]
        self.kernels = [scale * torch.randn(shape, generator=generator) for shape in shapes]
        self.identity = f"features:{seed}"

    def forward(self, x, activate=torch.relu):
        features = []
        for kernel in self.kernels:
            x = activate(nn.functional.conv2d(x, kernel, stride=kernel.shape[-1]))
            features.append(x)
        return features

    def guided(self, x):
        return self(x, GuidedReLU.apply)


def make_network(cloner, teacher, **options):
    network = MultiresolutionDistillation("st_vgg16", width=8, norm="group", **options).eval()
    network.cloner, network.teacher = cloner, teacher
    return network


@pytest.fixture(scope="module")
def network():
    return make_network(Features(0), Features(1), mse_weight=1e-4)


@pytest.fixture(scope="module")
def agreeing():
    return make_network(Features(1), Features(1), mse_weight=1e-4)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_default_map_is_what_the_network_gives(network, images):
    prediction = torch.rand_like(images)
    assert torch.equal(DistillationMap(network)(images, prediction), prediction)


def test_gradients_are_those_of_the_network_and_take_no_notice_of_the_prediction(network, images):
    for kind, guided in (("gradient", False), ("guided_backpropagation", True)):
        make = DistillationMap(network, kind)
        expected = network.gradient(images, guided=guided)
        result = make(images, torch.rand_like(images))
        torch.testing.assert_close(result, expected)
        assert not result.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_has_a_pixel_for_each_of_the_image_and_is_never_negative(network, images, kind):
    result = DistillationMap(network, kind)(images, network(images))
    assert result.shape == images.shape and result.dtype == torch.float32
    assert result.min() >= 0 and result.max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_where_teacher_and_cloner_agree_there_is_nothing(agreeing, images, kind):
    make = DistillationMap(agreeing, kind)
    result = make(images, agreeing(images))
    assert result.max() < 1e-4
    torch.testing.assert_close(make.score(images, result), torch.zeros(2), rtol=0, atol=1e-5)


def test_the_smooth_gradient_of_an_image_does_not_depend_on_its_batch(network, images):
    make = DistillationMap(network, "smooth_gradient")
    together = make(images, images)
    alone = torch.cat([make(image, image) for image in images.split(1)])
    torch.testing.assert_close(together, alone)
    expected = network.smooth_gradient(images[1:], torch.Generator().manual_seed(0))
    torch.testing.assert_close(together[1:], expected)
    assert not torch.allclose(together, network.gradient(images), rtol=0.01)


def test_sigma_blurs_in_pixels_of_a_128_pixel_image(network, images):
    prediction = network(images)
    expected = gaussian_filter(prediction.detach().numpy(), (0, 0, 2, 2))
    result = DistillationMap(network, sigma=4.0)(images, prediction)
    torch.testing.assert_close(result, torch.from_numpy(expected), rtol=1e-4, atol=1e-6)


def test_the_score_is_the_networks_whatever_the_map(network, images):
    expected = network.score(images).detach()
    for kind in KINDS:
        score = DistillationMap(network, kind).score(images, torch.rand_like(images))
        torch.testing.assert_close(score, expected)
        assert not score.requires_grad


def test_the_identity_tells_whatever_changes_the_values(network):
    first = DistillationMap(network).identity
    assert json.loads(json.dumps(first)) == first
    expected = {"kind": "discrepancy", "sigma": 0.0, "teacher": "features:1", "mse_weight": 1e-4}
    assert first == expected
    others = [DistillationMap(network, kind).identity for kind in KINDS[1:]]
    others += [DistillationMap(network, sigma=1.0).identity]
    for teacher, options in ((Features(2), {"mse_weight": 1e-4}), (Features(1), {})):
        others += [DistillationMap(make_network(Features(0), teacher, **options)).identity]
    texts = {json.dumps(identity) for identity in [first, *others]}
    assert len(texts) == len(others) + 1


def test_nonsense_is_refused(network, images):
    with pytest.raises(ConfigError, match="smooth_gradient"):
        DistillationMap(network, "saliency")
    for error, pair in (
        (ConfigError, (images, images[:, :, :32])),
        (InputError, (images * float("nan"), images)),
        (ArtifactError, (images, images * float("inf"))),
    ):
        with pytest.raises(error):
            DistillationMap(network)(*pair)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_in_training_mode_is_scored_as_in_evaluation_mode(kind):
    """MONAI's evaluators put it back into training mode before postprocessing; BatchNorm would take
    each slice's own statistics and remember them."""
    torch.manual_seed(0)
    network = MultiresolutionDistillation("st_vgg16", width=8, norm="batch")
    image = torch.rand(2, 1, 64, 64)
    scoring = DistillationMap(network.eval(), kind)
    expected = scoring(image, image), scoring.score(image, image)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    torch.testing.assert_close((scoring(image, image), scoring.score(image, image)), expected)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
