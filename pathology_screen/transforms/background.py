"""Black for the air around a head."""

from collections.abc import Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage as ndi
from skimage.morphology import convex_hull_image

SMOOTHING = 2.0
"""Standard deviation in pixels of 1 mm, before the head is told from air."""


class BlackenBackgroundd(MapTransform):
    """Set the air around a head to 0, so that a scanner's noise and ghosts do not count.

    The head is the convex hull of the largest part brighter than `level` after smoothing. Slices
    that were published often come so; a scanner's own do not.

    Args:
        keys: keys of slices (1, H, W) with pixels of about 1 mm, float in [0, 1].
        level: intensity between air and scalp; None changes nothing.
    """

    def __init__(
        self, keys: KeysCollection, level: float | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.level = level

    def __call__(self, data: Mapping) -> dict:
        d = dict(data)
        if self.level is None:
            return d
        for key in self.key_iterator(d):
            d[key] = d[key] * torch.from_numpy(head_mask(np.asarray(d[key][0]), self.level))
        return d


def head_mask(image: np.ndarray, level: float) -> np.ndarray:
    """Tell the head from the air around it: (H, W) in [0, 1] -> bool (H, W); all True of an image
    without anything brighter than `level`."""
    parts, count = ndi.label(ndi.gaussian_filter(image, SMOOTHING) > level)
    if not count:
        return np.ones(image.shape, bool)
    sizes = np.bincount(parts.ravel())
    return convex_hull_image(parts == 1 + sizes[1:].argmax())
