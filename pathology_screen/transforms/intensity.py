"""Intensities that scanners share: white matter at 1, black air, one median of the brain."""

from collections.abc import Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage as ndi
from skimage.morphology import convex_hull_image

from pathology_screen.errors import InputError
from pathology_screen.space import PLANE_Z, brain_in_plane, tissue_mask

SMOOTHING = 2.0
"""Standard deviation in pixels of 1 mm, before the head is told from air."""


class ScaleByTissuePercentiled(MapTransform):
    """Divide by a percentile of tissue intensities; clip to [0, 1] (paper, Appendix B).

    Args:
        keys: keys of images (1, H, W) or volumes (1, I, J, K), float; each is scaled by itself.
        percentile: of the intensities inside the brain where the item has a mask of it, else inside
            `tissue_mask`; it is mapped to 1.
        mask_key: key of the brain on the pixels of the image.

    Raises:
        InputError: "no_tissue" where no intensity is positive.
    """

    def __init__(
        self, keys: KeysCollection, percentile: float = 98.0, mask_key: str | None = None
    ) -> None:
        super().__init__(keys)
        self.percentile, self.mask_key = percentile, mask_key

    def __call__(self, data: Mapping) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            image, brain = np.asarray(d[key]), d.get(self.mask_key)
            tissue = tissue_mask(image) if brain is None else np.asarray(brain) > 0.5
            if not tissue.any():
                raise InputError("no_tissue", "the slice holds no positive intensity")
            scale = float(np.percentile(image[tissue], self.percentile))
            d[key] = torch.clamp(d[key] / scale, 0, 1)
        return d


class BlackenBackgroundd(MapTransform):
    """Set the air around a head to 0, so that a scanner's noise and ghosts do not count.

    The head is the convex hull of the largest part brighter than `level` after smoothing. Slices
    that were published often come so; a scanner's own do not.

    Args:
        keys: keys of slices (1, H, W) with pixels of about 1 mm, float in [0, 1].
        level: intensity between air and scalp; None changes nothing.
    """

    def __init__(self, keys: KeysCollection, level: float | None = None) -> None:
        super().__init__(keys)
        self.level = level

    def __call__(self, data: Mapping) -> dict:
        d = dict(data)
        for key in () if self.level is None else self.key_iterator(d):
            bright = ndi.gaussian_filter(np.asarray(d[key][0]), SMOOTHING) > self.level
            parts, count = ndi.label(bright)
            if count:
                largest = 1 + np.bincount(parts.ravel())[1:].argmax()
                d[key] = d[key] * torch.from_numpy(convex_hull_image(parts == largest))
        return d


class StandardContrastd(MapTransform):
    """Raise a slice to the power that gives the brain in it a wanted median.

    A percentile of the brain sets white matter; how dark grey matter is beside it is another
    property of the scanner and its sequence, and no finding. The brain is where the template's
    brain lies, so that a slice without a mask of its own is treated alike.

    Args:
        keys: keys of slices (1, H, W), float in [0, 1], that show the whole plane.
        median: of the intensities inside the brain, between 0 and 1; None changes nothing.
        z_mm: level of the plane; a `z_mm` in the item comes before it.

    Raises:
        InputError: "no_tissue" where the median of the brain is 0 or 1: there is no contrast.
    """

    def __init__(
        self, keys: KeysCollection, median: float | None = None, z_mm: float = PLANE_Z
    ) -> None:
        super().__init__(keys)
        self.median, self.z_mm = median, z_mm

    def __call__(self, data: Mapping) -> dict:
        d = dict(data)
        if (wanted := self.median) is None:
            return d
        for key in self.key_iterator(d):
            brain = brain_in_plane(tuple(d[key].shape[1:]), float(d.get("z_mm", self.z_mm)))
            median = float(np.median(np.asarray(d[key][0])[brain]))
            if not 0 < median < 1:
                detail = f"the median of the brain is {median:g} of its 98th percentile"
                raise InputError("no_tissue", detail)
            d[key] = d[key] ** (np.log(wanted) / np.log(median))
        return d
