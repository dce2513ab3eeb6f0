"""The brain of a scan as a mask, and as the scale of its intensities."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.space import find_brain, tissue_mask


class ExtractBraind(MapTransform):
    """Add the brain of a scan (1, I, J, K) as a mask, which lies on the same voxels.

    The mask is a MetaTensor (1, I, J, K), uint8, 0 or 1; that of a brain-extracted scan is its
    tissue. The meta data of scan and mask hold `brain_extracted`: whether the scan came so. Single
    slices (`axial_slice` in the item) pass as they are, without a mask.

    Args:
        keys: key of the scan, a MetaTensor with an affine (4, 4) in RAS+ mm.
        mask_key: key of the mask.

    Raises:
        InputError: "brain_extraction_failed".
        ConfigError: for several keys.
    """

    def __init__(
        self, keys: KeysCollection, mask_key: str = "brain", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            several = ", ".join(map(str, self.keys))
            raise ConfigError(f"one scan has one brain: give one key, not {several}")
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in () if d.get("axial_slice") else self.key_iterator(d):
            scan = d[key]
            mask, extracted = find_brain(np.asarray(scan[0]), np.asarray(scan.affine))
            scan.meta["brain_extracted"] = extracted
            values = torch.as_tensor(mask[None].view(np.uint8))
            d[self.mask_key] = MetaTensor(values, meta=dict(scan.meta))
        return d


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
