"""The intensity scale of an image: a percentile of its tissue."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from pathology_screen.errors import InputError
from pathology_screen.space import tissue_mask


class ScaleByTissuePercentiled(MapTransform):
    """Divide an image by a percentile of its tissue intensities and clip to [0, 1] (paper, Appendix
    B).

    Args:
        keys: keys of images (1, H, W) or volumes (1, I, J, K), float; each is scaled by itself.
        percentile: is mapped to 1; of the intensities inside the brain where the item has a mask of
            it, else inside `tissue_mask`.
        mask_key: key of the brain on the pixels of the image.

    Raises:
        InputError: "no_tissue" where no intensity is positive.
    """

    def __init__(
        self,
        keys: KeysCollection,
        percentile: float = 98.0,
        mask_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
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
