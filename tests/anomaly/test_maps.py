"""Anomaly maps against a slow, literal definition."""

import math

import lpips
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from scipy.ndimage import gaussian_filter
from skimage.exposure import equalize_adapthist

from pathology_screen.anomaly import AnomalyMap, image_score, perceptual_distance
from pathology_screen.anomaly.maps import gaussian_blur
from pathology_screen.errors import ArtifactError, ConfigError, InputError


@pytest.fixture(scope="module")
def st_alex():
    return perceptual_distance("st_alex")


def literal_map(image, reconstruction, distance, equalize=True):
    """Eq. 5 for one image (H, W) as it is written down; `distance` maps two arrays (H, W) to
    one."""
    sigma = 2.0 * len(image) / 128
    x, x_ph = np.clip(image, 0, 1), np.clip(reconstruction, 0, 1)
    raw = gaussian_filter(distance(x_ph, x), sigma)
    if not equalize:
        return np.abs(x_ph - x) * raw
    eq, eq_ph = equalize_adapthist(x), equalize_adapthist(x_ph)
    return np.abs(eq_ph - eq) * raw * gaussian_filter(distance(eq_ph, eq), sigma)


def on_arrays(distance):
    """A distance of tensors (1, 1, H, W) as one of arrays (H, W)."""

    def call(a, b):
        with torch.no_grad():
            return distance(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])[
                0, 0
            ].numpy()

    return call


@pytest.mark.parametrize("equalize", [True, False])
def test_equals_the_literal_definition(images, reconstructions, st_alex, equalize):
    maps = AnomalyMap(st_alex, equalize=equalize)(images, reconstructions)
    for i in range(len(images)):
        expected = literal_map(
            images[i, 0].numpy(), reconstructions[i, 0].numpy(), on_arrays(st_alex), equalize
        )
        np.testing.assert_allclose(maps[i, 0].numpy(), expected, rtol=1e-4, atol=1e-8)


def test_equals_the_literal_definition_in_full_size(full_size_image, st_alex):
    reconstruction = full_size_image.roll(1, dims=-1)
    expected = literal_map(
        full_size_image[0, 0].numpy(), reconstruction[0, 0].numpy(), on_arrays(st_alex)
    )
    actual = AnomalyMap(st_alex)(full_size_image, reconstruction)[0, 0].numpy()
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
    distance = on_arrays(
        lambda a, b: reference(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1), normalize=True)
    )
    expected = literal_map(images[0, 0].numpy(), reconstructions[0, 0].numpy(), distance)
    actual = anomaly_map(images[:1], reconstructions[:1])[0, 0].numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-8)


def test_without_perceptual_distance(images, reconstructions):
    maps = AnomalyMap("none")(images, reconstructions)
    for i in range(len(images)):
        x, x_ph = images[i, 0].numpy(), reconstructions[i, 0].numpy()
        np.testing.assert_array_equal(
            maps[i, 0].numpy(), np.abs(equalize_adapthist(x_ph) - equalize_adapthist(x))
        )


def test_plain_residual_is_not_clamped(images):
    reconstructions = images + 1.5
    residual = AnomalyMap("none", equalize=False)(images, reconstructions)
    torch.testing.assert_close(residual, torch.full_like(images, 1.5))
    assert AnomalyMap("none")(images, reconstructions).amax() <= 1


def test_identical_images_give_zero(images, st_alex):
    for equalize in (True, False):
        assert not AnomalyMap(st_alex, equalize=equalize)(images, images.clone()).any()


def test_images_do_not_influence_each_other(images, reconstructions, st_alex):
    anomaly_map = AnomalyMap(st_alex)
    together = anomaly_map(images, reconstructions)
    alone = torch.cat(
        [anomaly_map(images[i : i + 1], reconstructions[i : i + 1]) for i in range(len(images))]
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-8)


def test_repeated_calls_give_the_same_bits(images, reconstructions, st_alex):
    anomaly_map = AnomalyMap(st_alex)
    first, second = anomaly_map(images, reconstructions), anomaly_map(images, reconstructions)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_constant_reconstruction_gives_a_finite_map(images, st_alex):
    maps = AnomalyMap(st_alex)(images, torch.full_like(images, 0.3))
    assert maps.isfinite().all()
    assert maps.amin() >= 0
    assert (image_score(maps) > 0).all()


def test_intensity_bias_of_the_reconstruction_disappears(images):
    """Equalisation stretches each image by itself, so a darker copy is no anomaly."""
    darker = images * 0.5
    assert image_score(AnomalyMap("none", equalize=False)(images, darker)).mean() > 0.05
    assert image_score(AnomalyMap("none")(images, darker)).mean() < 0.01


def test_lesion_stands_out(images, st_alex):
    lesion = images.clone()
    lesion[..., 24:30, 24:30] = 0.95
    maps = AnomalyMap(st_alex)(lesion, images)
    inside, outside = maps[..., 24:30, 24:30].mean(), maps[..., :12, :].mean()
    assert inside > 20 * outside


def test_blur_scales_with_the_image():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 1, 64, 128, generator=generator)
    expected = np.stack([gaussian_filter(one, (1.0, 2.0)) for one in maps[:, 0].numpy()])
    np.testing.assert_allclose(gaussian_blur(maps, 2.0)[:, 0].numpy(), expected, rtol=1e-6)


def test_score_is_the_mean_of_all_pixels():
    maps = torch.arange(2 * 4.0).reshape(2, 1, 2, 2)
    torch.testing.assert_close(image_score(maps), torch.tensor([1.5, 5.5]))


def test_the_peak_is_the_highest_of_the_blurred_map_inside_the_brain():
    maps = torch.zeros(3, 1, 128, 128)
    maps[0, 0, 64, 64], maps[1, 0, 60, 50], maps[1, 0, 2, 2] = 1.0, 2.0, 90.0
    expected = gaussian_filter(maps[0, 0].numpy(), 3).max()
    torch.testing.assert_close(image_score(maps, "peak"), torch.tensor([1.0, 2.0, 0.0]) * expected)
    assert (
        AnomalyMap("none", score="peak").score(maps, maps).tolist()
        == image_score(maps, "peak").tolist()
    )
    with pytest.raises(ConfigError, match="mean, peak"):
        AnomalyMap("none", score="median")


def test_identity_is_json_and_tells_configurations_apart(st_alex):
    assert AnomalyMap(st_alex).identity == {
        "perceptual": st_alex.identity,
        "equalize": True,
        "sigma": 2.0,
        "score": "mean",
    }
    identities = [
        AnomalyMap("none").identity,
        AnomalyMap("none", equalize=False).identity,
        AnomalyMap(st_alex).identity,
    ]
    assert len({str(identity) for identity in identities}) == 3


def test_built_from_a_bundle_configuration(images):
    config = {
        "anomaly_map": {
            "_target_": "pathology_screen.anomaly.AnomalyMap",
            "perceptual": "none",
            "sigma": 1.0,
        }
    }
    anomaly_map = ConfigParser(config).get_parsed_content("anomaly_map")
    assert anomaly_map.identity == {
        "perceptual": "none",
        "equalize": True,
        "sigma": 1.0,
        "score": "mean",
    }


def test_input_that_cannot_be_scored_is_refused(images):
    anomaly_map = AnomalyMap("none")
    broken = images.clone()
    broken[0, 0, 5, 5] = math.nan
    with pytest.raises(InputError) as refusal:
        anomaly_map(broken, images)
    assert refusal.value.code == "not_finite"
    with pytest.raises(ArtifactError, match="weights are broken"):
        anomaly_map(images, broken)
    with pytest.raises(ConfigError, match="two batches"):
        anomaly_map(images, images[:1])
    with pytest.raises(ConfigError, match="two batches"):
        anomaly_map(images[0], images[0])


@pytest.mark.parametrize("perceptual", ["st_alex", "none"])
def test_small_images(perceptual):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 1, 16, 16, generator=generator)
    anomaly_map = AnomalyMap(perceptual)
    if perceptual == "none":
        assert anomaly_map(a, b).isfinite().all()
    else:
        with pytest.raises(ConfigError, match="32 px"):
            anomaly_map(a, b)
