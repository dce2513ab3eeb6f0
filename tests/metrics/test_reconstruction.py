"""Errors of reconstructions, in whole images and in altered regions."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter, uniform_filter
from skimage.metrics import structural_similarity as skimage_ssim

from pathology_screen.anomaly import perceptual_distance
from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.metrics.reconstruction import (
    brain_correlation,
    masked_mean,
    mean_squared_error,
    perceptual_error,
    relative_sharpness,
    structural_similarity,
)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    smooth = np.stack([gaussian_filter(rng.random((40, 40)), 2) for _ in range(3)])
    return torch.from_numpy((smooth - smooth.min()) / np.ptp(smooth)).float()[:, None]


def test_worked_examples():
    image = torch.zeros(2, 1, 2, 2)
    reconstruction = torch.tensor([[[[0.1, 0.2], [0.0, 0.0]]], [[[0.5, 0.5], [0.5, 0.5]]]])
    assert mean_squared_error(image, reconstruction).tolist() == pytest.approx([0.05 / 4, 0.25])
    mask = torch.tensor([[[[1, 0], [0, 0]]], [[[1, 1], [0, 0]]]])
    assert mean_squared_error(image, reconstruction, mask).tolist() == pytest.approx([0.01, 0.25])
    soft = masked_mean(reconstruction, mask * 0.5)  # a weight
    assert soft.tolist() == pytest.approx([0.1, 0.5])
    assert masked_mean(reconstruction.square(), mask > 0).dtype == torch.float64


def test_only_the_altered_region_counts_and_against_the_healthy_image(images):
    """Table 1: copying the anomaly is an error, restoring the image is none."""
    mask = torch.zeros_like(images, dtype=torch.bool)
    mask[:, :, 10:20, 10:20] = True
    altered = torch.where(mask, 1.0, images)
    expected = ((1 - images[mask]) ** 2).reshape(3, -1).mean(1).numpy()
    assert mean_squared_error(images, altered, mask).numpy() == pytest.approx(expected, rel=1e-6)
    wrong_elsewhere = torch.where(mask, images, 0.5)
    assert mean_squared_error(images, wrong_elsewhere, mask).tolist() == [0, 0, 0]
    assert (mean_squared_error(images, wrong_elsewhere) > 0).all()


def test_similarity_equals_scikit_images_and_under_a_mask_the_mean_of_its_map(images):
    rng = np.random.default_rng(1)
    reconstruction = images + 0.1 * torch.from_numpy(rng.normal(size=images.shape))
    found = structural_similarity(MetaTensor(images), reconstruction).tolist()
    pairs = zip(images[:, 0].double().numpy(), reconstruction[:, 0].numpy())
    assert found == pytest.approx([skimage_ssim(x, y, data_range=1.0) for x, y in pairs], abs=1e-9)
    assert structural_similarity(images, images).tolist() == pytest.approx([1, 1, 1])
    reconstruction = images.roll(1, dims=-1)
    mask = torch.zeros_like(images)
    mask[:, :, 5:20, 3:30] = 1
    found = structural_similarity(images, reconstruction, mask).tolist()
    pairs = zip(images[:, 0].double().numpy(), reconstruction[:, 0].double().numpy())
    maps = [skimage_ssim(x, y, data_range=1.0, full=True)[1] for x, y in pairs]
    assert found == pytest.approx([each[5:20, 3:30].mean() for each in maps], abs=1e-9)


def test_sharpness_is_the_detail_beside_the_local_mean(images):
    blurred = torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, 1, 1)))
    found = relative_sharpness(images, blurred)
    assert (found < 0.9).all()
    assert relative_sharpness(images, images).tolist() == [1, 1, 1]
    assert relative_sharpness(images, 3 * images + 1).tolist() == pytest.approx([3, 3, 3])
    framed = images.clone()  # black at the border, where the window is cut

    def literal(batch):
        detail = [x - uniform_filter(x, 3, mode="constant") for x in batch[:, 0].double().numpy()]
        return np.array([np.sqrt((d[1:-1, 1:-1] ** 2).mean()) for d in detail])

    framed[..., :3, :] = framed[..., -3:, :] = 0
    framed[..., :3] = framed[..., -3:] = 0
    shifted = framed.roll(1, dims=-1) * 0.7
    expected = literal(shifted) / literal(framed)
    assert relative_sharpness(framed, shifted).numpy() == pytest.approx(expected, rel=1e-6)


def test_perceptual_error_is_the_mean_of_the_distance_map(images):
    distance = perceptual_distance("st_alex")
    noisy = (images + 0.3 * torch.randn(images.shape, generator=torch.manual_seed(0))).clamp(0, 1)
    whole = perceptual_error(images, noisy, distance)
    expected = distance(images, noisy).mean((1, 2, 3))
    assert whole.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    half = torch.zeros_like(images)
    half[..., :20] = 1
    parts = [perceptual_error(images, noisy, distance, mask) for mask in (half, 1 - half)]
    assert ((parts[0] + parts[1]) / 2).tolist() == pytest.approx(whole.tolist(), rel=1e-6)
    assert perceptual_error(images, images, distance).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    outside = perceptual_error(images, noisy + 2, distance)  # clamped, as in Eq. 5
    white = perceptual_error(images, torch.ones_like(images), distance)
    assert outside.tolist() == pytest.approx(white.tolist())


def test_what_cannot_be_compared_is_refused(images):
    broken = images.clone()
    broken[1, 0, 3, 3] = float("nan")
    for metric in (mean_squared_error, structural_similarity, relative_sharpness):
        with pytest.raises(ConfigError, match="expected two batches"):
            metric(images, images[:2])
        with pytest.raises(InputError, match="not_finite"):
            metric(broken, images)
        with pytest.raises(ArtifactError, match="weights"):
            metric(images, broken)
    mask = torch.ones_like(images)
    mask[1] = 0
    with pytest.raises(ConfigError, match=r"empty mask: images \[1\]"):
        mean_squared_error(images, images, mask)
    with pytest.raises(ConfigError, match="does not lie on maps"):
        mean_squared_error(images, images, mask[:1])
    with pytest.raises(InputError, match="constant_image"):
        relative_sharpness(torch.full_like(images, 0.5), images)


def test_brain_correlation_is_that_inside_the_brain_and_0_with_something_constant():
    generator = torch.Generator().manual_seed(0)
    image, other = torch.rand((2, 3, 1, 16, 16), generator=generator)
    image[..., :8] = 0
    expected = [np.corrcoef(x[x > 0], y[x > 0])[0, 1] for x, y in zip(image.numpy(), other.numpy())]
    assert brain_correlation(image, other).tolist() == pytest.approx(expected)
    assert brain_correlation(image, 0.3 * image + 0.2).tolist() == pytest.approx([1, 1, 1])
    assert brain_correlation(image, 1 - image).tolist() == pytest.approx([-1, -1, -1])

    assert brain_correlation(image, torch.full_like(image, 0.5)).tolist() == [0, 0, 0]
    with pytest.raises(ConfigError, match="empty mask"):
        brain_correlation(0 * image, image)
