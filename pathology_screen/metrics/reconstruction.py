"""How close a reconstruction comes to the healthy image (paper, section 4.1, Table 1a).

On the scale of images in [0, 1]; Table 1 most likely prints MSE and LPIPS x 100.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from skimage import metrics
from torch import Tensor
from torch.nn import functional as F

from pathology_screen.anomaly.maps import check_pair
from pathology_screen.errors import ConfigError, InputError

_checked = partial(check_pair, dtype=torch.float64)


def mean_squared_error(image: Tensor, reconstruction: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean squared error of each image: (B,), float64.

    Args:
        image: healthy images (B, 1, H, W) in [0, 1], before they were altered.
        reconstruction: the same shape; of synthetic anomalies that of the altered images.
        mask: the same shape, in [0, 1]: the altered region; None for the whole image.

    Raises:
        ConfigError: if shapes differ or the mask of an image is empty.
        InputError: "not_finite", if an image holds NaN or infinite values.
        ArtifactError: if a reconstruction does.
    """
    image, reconstruction = _checked(image, reconstruction)
    return masked_mean((image - reconstruction).square(), mask)


def perceptual_error(
    image: Tensor,
    reconstruction: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    mask: Tensor | None = None,
) -> Tensor:
    """The mean of a perceptual distance map of each image, such as
    `anomaly.perceptual_distance(...)`; the rest as in `mean_squared_error`. Table 1 uses LPIPS on
    AlexNet: other backbones do not compare with it."""
    x, x_ph = (each.clamp(0, 1).float() for each in _checked(image, reconstruction))
    return masked_mean(distance(x, x_ph), mask)


def structural_similarity(
    image: Tensor, reconstruction: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The SSIM of each image, -1 to 1, by scikit-image with its 7 x 7 window: (B,), float64. Under
    a mask the mean of the map of SSIM weighted by it; without one the windows that reach beyond the
    image are left out. Shapes and errors as in `mean_squared_error`."""
    x, x_ph = (each[:, 0].cpu().numpy() for each in _checked(image, reconstruction))
    found = [
        metrics.structural_similarity(*pair, data_range=1.0, full=True) for pair in zip(x, x_ph)
    ]
    if mask is None:
        return torch.tensor([mean for mean, _ in found])
    return masked_mean(torch.from_numpy(np.stack([each for _, each in found])[:, None]), mask)


def relative_sharpness(image: Tensor, reconstruction: Tensor) -> Tensor:
    """The sharpness of each reconstruction over that of its image: (B,), float64.

    Sharpness is the root mean square of an image minus its 3 x 3 mean: below 1, fine detail was
    lost, wherever it was. Shapes and errors as in `mean_squared_error`; InputError also with
    "constant_image", where an image has no detail at all.
    """
    reference, found = (
        (each - F.avg_pool2d(each, 3, stride=1, padding=1, count_include_pad=False))
        .square()
        .mean((1, 2, 3))
        .sqrt()
        for each in _checked(image, reconstruction)
    )
    if not (reference > 0).all():
        raise InputError("constant_image", "there is no detail to compare sharpness with")
    return found / reference


def brain_correlation(image: Tensor, reconstruction: Tensor) -> Tensor:
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

    def centred(values: Tensor) -> Tensor:
        return values - masked_mean(values, brain)[:, None, None, None]

    x, x_ph = centred(image), centred(reconstruction)
    scale = (masked_mean(x.square(), brain) * masked_mean(x_ph.square(), brain)).sqrt()
    return torch.where(scale > 1e-12, masked_mean(x * x_ph, brain) / scale.clamp(min=1e-12), 0.0)


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of the pixels of each map (B, 1, H, W), weighted by a mask alike: (B,), float64;
    ConfigError if the shapes differ or the mask of an image is empty."""
    weights = torch.ones_like(values) if mask is None else mask.to(values.device)
    if weights.shape != values.shape:  # a broadcast mask would give other means without a word
        shapes = f"{tuple(weights.shape)} does not lie on maps {tuple(values.shape)}"
        raise ConfigError(f"the mask {shapes}")
    values, weights = values.double(), weights.double()
    area = weights.sum((1, 2, 3))
    if not (area > 0).all():
        empty = np.flatnonzero(area.cpu().numpy() <= 0).tolist()
        raise ConfigError(f"there is no mean over an empty mask: images {empty} of the batch")
    return (values * weights).sum((1, 2, 3)) / area
