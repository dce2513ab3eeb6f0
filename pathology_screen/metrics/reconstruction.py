"""How close a reconstruction comes to the healthy image (paper, section 4.1, Table 1a).

On the scale of images in [0, 1]; Table 1 most likely prints MSE and LPIPS x 100.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from skimage import metrics
from torch.nn import functional as F

from pathology_screen.anomaly.maps import check_pair
from pathology_screen.errors import ConfigError, InputError

_checked = partial(check_pair, dtype=torch.float64)


def mean_squared_error(
    image: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean squared error of each image: (B,), float64.

    Args:
        image: healthy images (B, 1, H, W) in [0, 1], before they were altered.
        reconstruction: the same shape; of synthetic anomalies that of the altered images.
        mask: the same shape, in [0, 1]: the altered region; None for the whole image.

    Raises:
        ConfigError: if shapes differ or the mask of an image is empty.
        InputError: "not_finite", if an image holds NaN or infinite values.
        ArtifactError: if a reconstruction does.

    >>> mean_squared_error(torch.ones(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5))
    tensor([0.2500], dtype=torch.float64)
    """
    image, reconstruction = _checked(image, reconstruction)
    return masked_mean((image - reconstruction).square(), mask)


def perceptual_error(
    image: torch.Tensor,
    reconstruction: torch.Tensor,
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean of a perceptual distance map of each image, such as
    `anomaly.perceptual_distance(...)`; the rest as in `mean_squared_error`. Table 1 uses LPIPS on
    AlexNet: other backbones do not compare with it.

    >>> x = torch.rand(1, 1, 8, 8)
    >>> perceptual_error(x, x, distance=lambda a, b: (a - b).abs())
    tensor([0.], dtype=torch.float64)
    """
    x, x_ph = (each.clamp(0, 1).float() for each in _checked(image, reconstruction))
    return masked_mean(distance(x, x_ph), mask)


def structural_similarity(
    image: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the SSIM of each image, -1 to 1, by scikit-image with its 7 x 7 window: (B, 1, H, W)
    twice -> (B,), float64. Under a mask of that shape, the mean of the map of SSIM weighted by it;
    without one the windows that reach beyond the image are left out. Raises as
    `mean_squared_error`; ConfigError also for images smaller than the window.

    >>> x = torch.rand(1, 1, 8, 8)
    >>> structural_similarity(x, x)
    tensor([1.], dtype=torch.float64)
    """
    x, x_ph = (each[:, 0].cpu().numpy() for each in _checked(image, reconstruction))
    if min(x.shape[1:]) < 7:
        raise ConfigError(f"SSIM needs images of at least 7 x 7 pixels, not {x.shape[1:]}")
    found = [
        metrics.structural_similarity(*pair, data_range=1.0, full=True) for pair in zip(x, x_ph)
    ]
    if mask is None:
        return torch.tensor([mean for mean, _ in found])
    return masked_mean(torch.from_numpy(np.stack([each for _, each in found])[:, None]), mask)


def relative_sharpness(image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """Return the sharpness of each reconstruction over that of its image: (B, 1, H, W) twice ->
    (B,), float64.

    Sharpness is the root mean square of an image minus its 3 x 3 mean: below 1, fine detail was
    lost, wherever it was. Raises as `mean_squared_error`; InputError also with "constant_image",
    where an image has no detail at all.

    >>> x = torch.eye(8)[None, None]
    >>> relative_sharpness(x, 0.5 * x)
    tensor([0.5000], dtype=torch.float64)
    """
    image, reconstruction = _checked(image, reconstruction)
    reference = _sharpness(image)
    if not (reference > 0).all():
        raise InputError("constant_image", "there is no detail to compare sharpness with")
    return _sharpness(reconstruction) / reference


def brain_correlation(image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """Return the Pearson correlation of each image with its reconstruction where the image is above
    0, in the brain: (B, 1, H, W) twice -> (B,), float64, -1 to 1; 0 where either is constant there.

    It does not depend on brightness and contrast, and tells an image of another kind than those
    trained on: a network that has seen T1-weighted brains alone paints one, whatever it is given.
    Raises as `mean_squared_error`; ConfigError also where an image is empty.

    >>> x = torch.arange(4.0).view(1, 1, 2, 2)
    >>> brain_correlation(x, 0.1 + 0.2 * x).round(decimals=6)
    tensor([1.], dtype=torch.float64)
    """
    image, reconstruction = _checked(image, reconstruction)
    brain = (image > 0).double()

    def centred(values: torch.Tensor) -> torch.Tensor:
        return values - masked_mean(values, brain)[:, None, None, None]

    x, x_ph = centred(image), centred(reconstruction)
    scale = (masked_mean(x.square(), brain) * masked_mean(x_ph.square(), brain)).sqrt()
    return torch.where(scale > 1e-12, masked_mean(x * x_ph, brain) / scale.clamp(min=1e-12), 0.0)


def masked_mean(values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean of the pixels of each map (B, 1, H, W), weighted by a mask alike: (B,),
    float64.

    Raises:
        ConfigError: if the shapes differ or the mask of an image is empty.

    >>> values = torch.tensor([[[[1.0, 3.0]]]])
    >>> masked_mean(values), masked_mean(values, torch.tensor([[[[1.0, 0.0]]]]))
    (tensor([2.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    weights = torch.ones_like(values) if mask is None else mask.to(values.device)
    if weights.shape != values.shape:
        raise ConfigError(
            f"the mask {tuple(weights.shape)} does not lie on maps {tuple(values.shape)}"
        )
    values, weights = values.double(), weights.double()
    area = weights.sum((1, 2, 3))
    if not (area > 0).all():
        empty = np.flatnonzero(area.cpu().numpy() <= 0).tolist()
        raise ConfigError(f"there is no mean over an empty mask: images {empty} of the batch")
    return (values * weights).sum((1, 2, 3)) / area


def _sharpness(image: torch.Tensor) -> torch.Tensor:
    mean = F.avg_pool2d(image, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    return (image - mean).square().mean((1, 2, 3)).sqrt()
