"""Anomaly maps against a slow, literal definition."""

import math

import lpips
import numpy as np
import pytest
import torch
from literal import literal_map
from monai.bundle import ConfigParser
from scipy.ndimage import gaussian_filter
from skimage.exposure import equalize_adapthist
from torch import nn

from pathology_screen.anomaly import AnomalyMap, equalize, perceptual_distance
from pathology_screen.anomaly.maps import gaussian_blur
from pathology_screen.errors import ArtifactError, ConfigError, InputError


def image_score(maps):
    return AnomalyMap("none").score(None, maps)


def close(a, b, **tolerances):
    torch.testing.assert_close(a, b, **tolerances or {"rtol": 0, "atol": 0})


class TestEqualization:
    def test_each_image_equals_scikit_image(self, images):
        before = images.clone()
        expected = np.stack([equalize_adapthist(image) for image in images[:, 0].numpy()])
        equalized = equalize(images)
        assert equalized.shape == images.shape and equalized.dtype == torch.float32
        np.testing.assert_array_equal(equalized[:, 0].numpy(), expected)
        close(equalized[1:2], equalize(images[1:2]))
        close(images, before)

    def test_values_are_clamped_first_and_then_span_zero_to_one(self, images):
        close(equalize(images * 2 - 0.2), equalize((images * 2 - 0.2).clamp(0, 1)))
        faint = equalize(0.3 + 0.01 * images)
        assert faint.amin().item() == 0 and faint.amax().item() == 1

    @pytest.mark.parametrize(("value", "spread"), [(0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (0.5, 1e-5)])
    def test_an_image_without_contrast_stays_as_it_is(self, value, spread):
        """A range below one level of 16 bits is none."""
        generator = torch.Generator().manual_seed(0)
        constant = value + spread * torch.rand(2, 1, 32, 32, generator=generator)
        close(equalize(constant), constant)

    def test_smallest_image(self):
        generator = torch.Generator().manual_seed(0)
        equalized = equalize(torch.rand(1, 1, 16, 16, generator=generator))
        assert 0.2 < equalized.std().item() < 0.4
        with pytest.raises(ConfigError, match="16 px"):
            equalize(torch.rand(1, 1, 15, 64, generator=generator))


@pytest.fixture(scope="module")
def st_alex():
    return perceptual_distance("st_alex")


@pytest.mark.parametrize("equalized", [True, False])
def test_equals_the_literal_definition(images, reconstructions, st_alex, equalized):
    anomaly_map = AnomalyMap(st_alex, equalize=equalized)
    maps = anomaly_map(images, reconstructions)
    close(maps, anomaly_map(images, reconstructions))
    for i, pair in enumerate(zip(images.split(1), reconstructions.split(1))):
        expected = literal_map(*pair, st_alex, equalized)
        np.testing.assert_allclose(maps[i, 0].numpy(), expected, rtol=1e-4, atol=1e-8)


def test_equals_the_literal_definition_in_full_size(full_size_image, st_alex):
    reconstruction = full_size_image.roll(1, dims=-1)
    actual = AnomalyMap(st_alex)(full_size_image, reconstruction)[0, 0].numpy()
    expected = literal_map(full_size_image, reconstruction, st_alex)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.needs_shared
@pytest.mark.filterwarnings("ignore:.*deprecated since 0.13")
def test_squeeze_equals_the_literal_definition_with_lpips_itself(
    shared_data, monkeypatch, images, reconstructions
):
    monkeypatch.setenv("TORCH_HOME", str(shared_data.parent / "torch_home"))
    anomaly_map = AnomalyMap("squeeze")
    # torchvision checks the hash in the file name when it downloads, not when it reads the cache
    reference = lpips.LPIPS(net="squeeze", spatial=True, verbose=False)

    def distance(a, b):
        return reference(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1), normalize=True)

    actual = anomaly_map(images[:1], reconstructions[:1])[0, 0].numpy()
    expected = literal_map(images[:1], reconstructions[:1], distance)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-8)


def test_without_perceptual_distance(images, reconstructions):
    maps = AnomalyMap("none")(images, reconstructions)
    close(maps, (equalize(reconstructions) - equalize(images)).abs())


def test_plain_residual_is_not_clamped(images):
    residual = AnomalyMap("none", equalize=False)(images, images + 1.5)
    torch.testing.assert_close(residual, torch.full_like(images, 1.5))
    assert AnomalyMap("none")(images, images + 1.5).amax() <= 1


@pytest.mark.parametrize("equalized", [True, False])
def test_identical_images_give_zero(images, st_alex, equalized):
    assert not AnomalyMap(st_alex, equalize=equalized)(images, images.clone()).any()


def test_constant_reconstruction_gives_a_finite_map(images, st_alex):
    maps = AnomalyMap(st_alex)(images, torch.full_like(images, 0.3))
    assert maps.isfinite().all() and maps.amin() >= 0 and (image_score(maps) > 0).all()


def test_intensity_bias_of_the_reconstruction_disappears(images):
    """Equalisation stretches each image by itself, so a darker copy is no anomaly."""
    darker = images * 0.5
    assert image_score(AnomalyMap("none", equalize=False)(images, darker)).mean() > 0.05
    assert image_score(AnomalyMap("none")(images, darker)).mean() < 0.01


def test_lesion_stands_out(images, st_alex):
    lesion = images.clone()
    lesion[..., 24:30, 24:30] = 0.95
    maps = AnomalyMap(st_alex)(lesion, images)
    assert maps[..., 24:30, 24:30].mean() > 20 * maps[..., :12, :].mean()


def test_blur_scales_with_the_image():
    maps = torch.rand(2, 1, 64, 128, generator=torch.Generator().manual_seed(0))
    expected = np.stack([gaussian_filter(one, (1.0, 2.0)) for one in maps[:, 0].numpy()])
    np.testing.assert_allclose(gaussian_blur(maps, 2.0)[:, 0].numpy(), expected, rtol=1e-6)


def test_score_is_the_mean_of_all_pixels():
    maps = torch.arange(2 * 4.0).reshape(2, 1, 2, 2)
    torch.testing.assert_close(image_score(maps), torch.tensor([1.5, 5.5]))


def test_the_peak_is_the_highest_of_the_blurred_map_inside_the_brain():
    maps = torch.zeros(3, 1, 128, 128)
    maps[0, 0, 64, 64], maps[1, 0, 60, 50], maps[1, 0, 2, 2] = 1.0, 2.0, 90.0
    expected = gaussian_filter(maps[0, 0].numpy(), 3).max()
    peaks = AnomalyMap("none", score="peak").score(maps, maps)
    torch.testing.assert_close(peaks, torch.tensor([1.0, 2.0, 0.0]) * expected)
    with pytest.raises(ConfigError, match="mean, peak"):
        AnomalyMap("none", score="median")


def test_identity_is_json_and_tells_configurations_apart(st_alex):
    identity = {"perceptual": st_alex.identity, "equalize": True, "sigma": 2.0, "score": "mean"}
    assert AnomalyMap(st_alex).identity == identity
    plain = AnomalyMap("none", equalize=False).identity
    assert plain == {"perceptual": "none", "equalize": False, "sigma": 2.0, "score": "mean"}


def test_built_from_a_bundle_configuration():
    target = {"_target_": "pathology_screen.anomaly.AnomalyMap", "perceptual": "none", "sigma": 1.0}
    anomaly_map = ConfigParser({"anomaly_map": target}).get_parsed_content("anomaly_map")
    assert anomaly_map.identity == {
        "perceptual": "none",
        "equalize": True,
        "sigma": 1.0,
        "score": "mean",
    }


def test_input_that_cannot_be_scored_is_refused(images):
    anomaly_map, broken = AnomalyMap("none"), images.clone()
    broken[0, 0, 5, 5] = math.nan
    with pytest.raises(InputError) as refusal:
        anomaly_map(broken, images)
    assert refusal.value.code == "not_finite"
    with pytest.raises(ArtifactError, match="weights are broken"):
        anomaly_map(images, broken)
    for pair in (images, images[:1]), (images[0], images[0]):
        with pytest.raises(ConfigError, match="two batches"):
            anomaly_map(*pair)


def test_small_images():
    a, b = torch.rand(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert AnomalyMap("none")(a, b).isfinite().all()
    with pytest.raises(ConfigError, match="32 px"):
        AnomalyMap("st_alex")(a, b)


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
    distance = CountedDistance()
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = AnomalyMap(distance)(images, images.flip(3))
    assert distance.given == [3, 3]
    for number in range(3):
        one = slice(number, number + 1)
        alone = AnomalyMap(CountedDistance())(images[one], images[one].flip(3))
        torch.testing.assert_close(maps[one], alone, atol=1e-6, rtol=0)
