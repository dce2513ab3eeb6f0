"""Anomaly maps and scores against slow, literal definitions, and in the postprocessing of a
bundle."""

import json
import math

import lpips
import numpy as np
import pytest
import torch
from literal import literal_map
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, Orientationd, SpatialPadd
from scipy.ndimage import gaussian_filter
from skimage.exposure import equalize_adapthist
from torch import nn

from pathology_screen.anomaly import (
    AnomalyMap,
    AnomalyMapd,
    DistillationMap,
    equalize,
    perceptual_distance,
)
from pathology_screen.anomaly.maps import gaussian_blur
from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.networks.distillation import GuidedReLU, MultiresolutionDistillation

KINDS = ["discrepancy", "gradient", "smooth_gradient", "guided_backpropagation"]


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_equalization_is_that_of_scikit_image_for_each_clamped_image(images):
    before = images.clone()
    expected = np.stack([equalize_adapthist(image) for image in images[:, 0].numpy()])
    equal(equalize(images), torch.from_numpy(expected[:, None]))
    equal(images, before)
    equal(equalize(images * 2 - 0.2), equalize((images * 2 - 0.2).clamp(0, 1)))
    faint = equalize(0.3 + 0.01 * images)
    assert faint.amin().item() == 0 and faint.amax().item() == 1


def test_equalization_of_the_smallest_image_and_of_one_without_contrast():
    """A range below one level of 16 bits is none."""
    for value, spread in ((0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (0.5, 1e-5)):
        constant = value + spread * uniform(2, 1, 32, 32)
        equal(equalize(constant), constant)
    assert 0.2 < equalize(uniform(1, 1, 16, 16)).std().item() < 0.4
    with pytest.raises(ConfigError, match="16 px"):
        equalize(uniform(1, 1, 15, 64))


@pytest.fixture(scope="module")
def st_alex():
    return perceptual_distance("st_alex")


@pytest.mark.parametrize("equalized", [True, False])
def test_equals_the_literal_definition(images, reconstructions, st_alex, equalized):
    anomaly_map = AnomalyMap(st_alex, equalize=equalized)
    maps = anomaly_map(images, reconstructions)
    equal(maps, anomaly_map(images, reconstructions))
    for i, pair in enumerate(zip(images.split(1), reconstructions.split(1))):
        expected = literal_map(*pair, st_alex, equalized)
        np.testing.assert_allclose(maps[i, 0].numpy(), expected, rtol=1e-4, atol=1e-8)
    assert not anomaly_map(images, images.clone()).any()


@pytest.mark.needs_shared
@pytest.mark.filterwarnings("ignore:.*deprecated since 0.13")
def test_squeeze_equals_the_literal_definition_with_lpips_itself(
    shared_data, monkeypatch, images, reconstructions
):
    monkeypatch.setenv("TORCH_HOME", str(shared_data.parent / "torch_home"))
    # torchvision checks the hash in the file name when it downloads, not when it reads the cache
    reference = lpips.LPIPS(net="squeeze", spatial=True, verbose=False)

    def distance(a, b):
        return reference(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1), normalize=True)

    actual = AnomalyMap("squeeze")(images[:1], reconstructions[:1])[0, 0].numpy()
    expected = literal_map(images[:1], reconstructions[:1], distance)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-8)


def test_without_perceptual_distance_only_the_plain_residual_is_not_clamped(images):
    equal(
        AnomalyMap("none")(images, images + 0.5), (equalize(images + 0.5) - equalize(images)).abs()
    )
    residual = AnomalyMap("none", equalize=False)(images, images + 1.5)
    torch.testing.assert_close(residual, torch.full_like(images, 1.5))


def test_constant_reconstruction_gives_a_finite_map(images, st_alex):
    maps = AnomalyMap(st_alex)(images, torch.full_like(images, 0.3))
    assert maps.isfinite().all() and maps.amin() >= 0 and maps.mean() > 0


def test_blur_scales_with_the_image():
    maps = uniform(2, 1, 64, 128)
    expected = gaussian_filter(maps.numpy(), (1.0, 2.0), axes=(2, 3))
    np.testing.assert_allclose(gaussian_blur(maps, 2.0).numpy(), expected, rtol=1e-6)


def test_the_score_is_the_mean_or_the_highest_of_the_blurred_map_inside_the_brain():
    maps = torch.zeros(3, 1, 128, 128)
    maps[0, 0, 64, 64], maps[1, 0, 60, 50], maps[1, 0, 2, 2] = 1.0, 2.0, 90.0
    means = AnomalyMap("none").score(maps, maps)
    torch.testing.assert_close(means, torch.tensor([1.0, 92.0, 0.0]) / 128**2)
    expected = gaussian_filter(maps[0, 0].numpy(), 3).max()
    peaks = AnomalyMap("none", score="peak").score(maps, maps)
    torch.testing.assert_close(peaks, torch.tensor([1.0, 2.0, 0.0]) * expected)


def test_the_identity_tells_configurations_apart(st_alex):
    identity = {"perceptual": st_alex.identity, "equalize": True, "sigma": 2.0, "score": "mean"}
    assert AnomalyMap(st_alex).identity == identity
    plain = AnomalyMap("none", equalize=False, sigma=1.0, score="peak").identity
    assert plain == {"perceptual": "none", "equalize": False, "sigma": 1.0, "score": "peak"}


def test_what_cannot_be_scored_is_refused(images, network):
    broken = images.clone()
    broken[0, 0, 5, 5] = math.nan
    for scoring in (AnomalyMap("none"), DistillationMap(network)):
        with pytest.raises(InputError, match="not_finite"):
            scoring(broken, images)
        with pytest.raises(ArtifactError, match="weights are broken"):
            scoring(images, broken)
        for pair in (images, images[:1]), (images[0], images[0]):
            with pytest.raises(ConfigError, match="two batches"):
                scoring(*pair)
    with pytest.raises(ConfigError, match="32 px"):
        AnomalyMap("st_alex")(images[..., :16, :16], images[..., :16, :16])
    with pytest.raises(ConfigError, match="mean, peak"):
        AnomalyMap("none", score="median")
    with pytest.raises(ConfigError, match="smooth_gradient"):
        DistillationMap(network, "saliency")


class CountedDistance(nn.Module):
    """Notes how many images it is given at each call."""

    identity = "counted"

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, a, b):
        self.given.append(len(a))
        return (a - b).abs()


def test_a_batch_takes_two_perceptual_comparisons_however_many_images_it_holds():
    distance, images = CountedDistance(), uniform(3, 1, 32, 32)
    maps = AnomalyMap(distance)(images, images.flip(3))
    assert distance.given == [3, 3]
    alone = [AnomalyMap(CountedDistance())(image, image.flip(3)) for image in images.split(1)]
    torch.testing.assert_close(maps, torch.cat(alone), atol=1e-6, rtol=0)


class Features(nn.Module):
    """Four small layers in the place of a VGG-16, as cloner or teacher."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = [(4, 3, 4, 4), (6, 4, 2, 2), (6, 6, 2, 2), (6, 6, 2, 2)]
        self.kernels = [torch.randn(shape, generator=generator) for shape in shapes]
        self.identity = f"features:{seed}"

    def forward(self, x, activate=torch.relu):
        features = []
        for kernel in self.kernels:
            x = activate(nn.functional.conv2d(x, kernel, stride=kernel.shape[-1]))
            features.append(x)
        return features

    def guided(self, x):
        return self(x, GuidedReLU.apply)


def make_network(cloner, teacher, mse_weight=1e-4):
    network = MultiresolutionDistillation("st_vgg16", width=8, norm="group", mse_weight=mse_weight)
    network.cloner, network.teacher = Features(cloner), Features(teacher)
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return make_network(0, 1)


class TestDistillationMap:
    def test_each_map_is_that_of_the_network(self, network):
        images, prediction = uniform(2, 1, 64, 64), 1 - uniform(2, 1, 64, 64)
        generators = [torch.Generator().manual_seed(0) for _ in images]  # the same noise for each
        smooth = torch.cat(list(map(network.smooth_gradient, images.split(1), generators)))
        expected = [prediction, network.gradient(images), smooth]
        expected += [network.gradient(images, guided=True)]
        for kind, maps in zip(KINDS, expected):
            scoring = DistillationMap(network, kind)
            result, score = scoring(images, prediction), scoring.score(images, prediction)
            torch.testing.assert_close(result, maps)
            torch.testing.assert_close(score, network.score(images))
            assert result.min() >= 0 and not result.requires_grad and not score.requires_grad
        assert not torch.allclose(smooth, expected[1], rtol=0.01)

    def test_sigma_blurs_in_pixels_of_a_128_pixel_image(self, network):
        prediction = uniform(2, 1, 64, 64)
        result = DistillationMap(network, sigma=4.0)(prediction, prediction)
        torch.testing.assert_close(result, gaussian_blur(prediction, 4.0))

    def test_the_identity_tells_whatever_changes_the_values(self, network):
        first = DistillationMap(network).identity
        expected = {"kind": "discrepancy", "sigma": 0.0, "teacher": "features:1"}
        assert first == expected | {"mse_weight": 1e-4}
        others = [DistillationMap(network, kind).identity for kind in KINDS[1:]]
        others += [DistillationMap(network, sigma=1.0).identity]
        for options in ({"teacher": 2}, {"teacher": 1, "mse_weight": 0.01}):
            others += [DistillationMap(make_network(0, **options)).identity]
        assert len({json.dumps(identity) for identity in [first, *others]}) == 7

    def test_a_network_in_training_mode_is_scored_as_in_evaluation_mode(self):
        """MONAI's evaluators put it back into training mode before postprocessing; BatchNorm would
        take each slice's own statistics and remember them."""
        torch.manual_seed(0)
        network, image = MultiresolutionDistillation("st_vgg16", width=8), torch.rand(2, 1, 64, 64)
        scoring = DistillationMap(network.eval(), "gradient")
        expected = scoring(image, image), scoring.score(image, image)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        network.train()
        torch.testing.assert_close((scoring(image, image), scoring.score(image, image)), expected)
        assert network.training
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_transform_adds_map_and_score_of_one_image(images, reconstructions):
    anomaly_map = AnomalyMap("none")
    data = {"image": images[0], "pred": reconstructions[0], "name": "a"}
    result = AnomalyMapd(anomaly_map=anomaly_map)(data)
    expected = anomaly_map(images[:1], reconstructions[:1])
    equal(result["anomaly_map"], expected[0])
    assert result["score"] == anomaly_map.score(None, expected).item()
    assert isinstance(result["score"], float) and set(data) == {"image", "pred", "name"}


@pytest.mark.parametrize("prediction", [torch.Tensor, MetaTensor])
def test_invertd_takes_map_and_reconstruction_back_to_the_scan(prediction):
    """A slice of 40 x 60 pixels of 2 x 1.5 mm, first axis to the left, second to the front."""
    affine = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -40], [0, 0, 5, 12], [0, 0, 0, 1]])
    scan = MetaTensor(uniform(40, 60), affine=affine)
    steps = [EnsureChannelFirstd("image", channel_dim="no_channel")]
    steps += [Orientationd("image", axcodes="PL"), SpatialPadd("image", (64, 64))]
    preprocessing = Compose(steps)
    data = preprocessing({"image": scan})
    data["pred"] = prediction(data["image"].as_tensor() * 0.5)
    data = AnomalyMapd(anomaly_map=AnomalyMap("none", equalize=False))(data)
    assert data["anomaly_map"].applied_operations == data["image"].applied_operations
    keys = ("anomaly_map", "pred")
    data = Invertd(keys, transform=preprocessing, orig_keys="image")(data)
    for key in keys:  # both are half of the image here
        np.testing.assert_array_equal(data[key][0].numpy(), scan.numpy() * 0.5)
        np.testing.assert_array_equal(data[key].affine, scan.affine)
