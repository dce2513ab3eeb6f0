"""Add the brain of a scan as a mask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from pathology_screen.errors import ConfigError
from pathology_screen.space import find_brain


class ExtractBraind(MapTransform):
    """Add the brain of a scan (1, I, J, K) as a mask, which lies on the same voxels.

    The mask is a MetaTensor (1, I, J, K), float32, 0 or 1. Of a brain-extracted scan it is the
    tissue. The meta data of the scan and its mask hold `brain_extracted`: whether the scan came so.
    Single slices (`axial_slice` in the item) pass as they are, without a mask.

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
            values = torch.as_tensor(mask[None], dtype=torch.float32)
            d[self.mask_key] = MetaTensor(values, meta=dict(scan.meta))
        return d
