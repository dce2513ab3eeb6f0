"""Take one axial slice out of a volume, and put a result back where it came from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import MetaKeys, TraceKeys

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.geometry import axial_level, spacing
from pathology_screen.space import tissue_mask

SMALL_AREA = 0.05
SAMPLES = 1_000_000


def tissue_extent(volume: np.ndarray) -> tuple[int, int]:
    """Find the levels that hold tissue.

    Args:
        volume: (I, J, K), the levels along the last axis. Of large volumes every second (third, ...) row and column
            is looked at.

    Returns:
        (first, stop): the levels from first to stop - 1. A level counts when its tissue covers at least a twentieth of
        the area that it covers on the fullest level, so that stray bright voxels do not.

    Raises:
        InputError: "no_tissue".
    """
    stride = max(1, round((volume.size / SAMPLES) ** 0.5))
    area = tissue_mask(volume[::stride, ::stride]).sum(axis=(0, 1))
    if not area.any():
        raise InputError("no_tissue", "the volume holds no positive intensity")
    levels = np.flatnonzero(area >= SMALL_AREA * area.max())
    return int(levels[0]), int(levels[-1]) + 1


class AxialSliced(MapTransform, InvertibleTransform):
    """Take one axial slice: (C, H, W, K) with the levels last, as "PLS" orientation gives -> (C, H, W).

    The slice is a MetaTensor whose affine (3, 3) is diagonal and in mm of the slice's own plane, so that MONAI's
    spatial transforms work on it in two dimensions; its meta data hold `level`. The inverse puts a slice into a zero
    volume at that level, with the affine of the volume.

    Args:
        keys: keys of volumes on the same voxels. The first chooses the level for all.
        level: "middle", the level n // 2 of the n levels; a whole number, counted from inferior; or a fraction in
            (0, 1) of the levels that hold tissue (`tissue_extent`). A `level` in the item comes before it.

    Raises:
        InputError: "slice_out_of_range"; "no_tissue" where the level, or the volume, holds none (`tissue_extent`).
        ConfigError: where the volumes differ in shape or affine.
    """

    def __init__(
        self, keys: KeysCollection, level: str | int | float = "middle", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.level = level

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        first: MetaTensor | None = None
        for key in self.key_iterator(d):
            volume = d[key]
            if first is None:
                first, index = volume, self.choose(volume, d.get("level"))
            if volume.shape[1:] != first.shape[1:] or not np.allclose(volume.affine, first.affine, atol=1e-3):
                raise ConfigError(f"{key} does not lie on the voxels of the first image of the item")
            d[key] = self._take(volume, index)
        return d

    def choose(self, volume: MetaTensor, level: str | int | float | None = None) -> int:
        """Index of the slice of a volume (C, H, W, K) at a level, or else at the one this transform was made for."""
        level = self.level if level is None else level
        first, stop = tissue_extent(np.asarray(volume[0]))
        index = axial_level((first, stop) if isinstance(level, float) else volume.shape[-1], level)
        if not first <= index < stop:
            raise InputError("no_tissue", f"level {index}; only levels {first} to {stop - 1} hold tissue")
        return index

    def _take(self, volume: MetaTensor, index: int) -> MetaTensor:
        plane = np.diag(np.append(spacing(np.asarray(volume.affine))[:2], 1.0))
        image = _with_affine(volume.as_tensor()[..., index].clone(), plane, volume)
        image.meta["level"] = index
        self.push_transform(
            image, orig_size=volume.shape[1:], extra_info={"index": index, "affine": volume.affine.clone()}
        )
        return image

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            transform = self.pop_transform(image)
            taken = transform[TraceKeys.EXTRA_INFO]
            volume = torch.zeros(
                (image.shape[0], *transform[TraceKeys.ORIG_SIZE]), dtype=image.dtype, device=image.device
            )
            volume[..., taken["index"]] = image.as_tensor()
            d[key] = _with_affine(volume, taken["affine"], image)
        return d


def _with_affine(values: torch.Tensor, affine: np.ndarray | torch.Tensor, like: MetaTensor) -> MetaTensor:
    meta = {name: value for name, value in like.meta.items() if name != MetaKeys.AFFINE}
    applied = list(like.applied_operations)
    return MetaTensor(values, affine=torch.as_tensor(affine), meta=meta, applied_operations=applied)
