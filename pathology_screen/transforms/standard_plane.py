"""Take a scan to the standard plane of MNI152 space, and a result back to the scan's voxels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import MetaKeys, TraceKeys
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from pathology_screen.errors import ConfigError
from pathology_screen.geometry import DISPLAY_AXES, spacing
from pathology_screen.space import PLANE_Z, locate, put_back, take_plane

NEAREST = "nearest"


class StandardPlaned(MapTransform, InvertibleTransform):
    """Take the axial plane of MNI152 space: (C, I, J, K), any orientation -> (C, 233, 197),
    float32.

    The brain is registered to the template, and the plane resampled once from the scan's own
    voxels: rows from anterior to posterior, columns to the patient's left, 1 mm. The affine (3, 3)
    is in mm of the plane, so that MONAI's transforms work on it in two dimensions. The meta data
    hold `z_mm`, `to_scan` ((4, 4), MNI152 mm -> scanner mm) and `fit` (the fields of `space.Fit`);
    where those of the scan hold `to_scan` and `fit` already, it is not registered again, and needs
    no brain. The inverse puts values (C, 233, 197) on the voxels that the plane cuts, 0 elsewhere
    (`space.put_back`).

    The mask of the brain is taken along, to (1, 233, 197), 0 or 1, so that intensities can be
    scaled by the brain.

    An item with `axial_slice: true` is such a slice already: (C, H, W, 1) in any orientation -> (C,
    H, W).

    Args:
        keys: of the scan, and of what lies on its voxels (masks), which is resampled alike. The
            first is registered.
        mask_key: of the brain in the first, see `ExtractBraind`.
        z_mm: level of the plane in mm; a `z_mm` in the item comes before it.
        domain: "whole_head" shows everything, "brain_extracted" sets the first to 0 outside its
            brain.

    Raises:
        InputError: "registration_failed".
        ConfigError: for an unknown domain; where the scans of an item differ in shape or affine, or
            the brain is missing; where an axial slice holds several slices.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str = "brain",
        z_mm: float = PLANE_Z,
        domain: Literal["whole_head", "brain_extracted"] = "whole_head",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if domain not in ("whole_head", "brain_extracted"):
            raise ConfigError(f'domain is "whole_head" or "brain_extracted", not {domain!r}')
        self.mask_key, self.z_mm, self.domain = mask_key, z_mm, domain

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        if d.get("axial_slice"):
            return d | {key: self._flatten(d[key], key) for key in self.key_iterator(d)}
        if not (keys := list(self.key_iterator(d))):
            return d
        first, brain = d[keys[0]], d.get(self.mask_key)
        place = self._locate(first, brain) | {"z_mm": float(d.get("z_mm", self.z_mm))}
        for key in dict.fromkeys(keys if brain is None else [*keys, self.mask_key]):
            if d[key].shape[1:] != first.shape[1:] or not np.allclose(
                d[key].affine, first.affine, atol=1e-3
            ):
                raise ConfigError(
                    f"{key} does not lie on the voxels of the first image of the item"
                )
            d[key] = self._take(d[key], place)
        if brain is None:
            return d
        d[self.mask_key] = (d[self.mask_key] >= 0.5).to(torch.float32)
        if self.domain == "brain_extracted":
            d[keys[0]] = d[keys[0]] * d[self.mask_key].as_tensor()
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            transform = self.pop_transform(image)
            trace, size = transform[TraceKeys.EXTRA_INFO], tuple(transform[TraceKeys.ORIG_SIZE])
            if "turn" in trace:
                volume = _turned(np.asarray(image)[..., None], trace["turn"])
            else:
                order = 0 if trace["mode"] == NEAREST else 1
                to_scan, affine = np.asarray(trace["to_scan"]), np.asarray(trace["affine"])
                planes = np.asarray(image, np.float32)
                volume = np.stack(
                    [put_back(p, to_scan, trace["z_mm"], size, affine, order)[0] for p in planes]
                )
            d[key] = _with_affine(torch.as_tensor(volume.copy()), trace["affine"], image)
        return d

    def _locate(self, scan: MetaTensor, brain: MetaTensor | None) -> dict[str, Any]:
        if "to_scan" in scan.meta and "fit" in scan.meta:
            return {name: scan.meta[name] for name in ("to_scan", "fit")}
        if brain is None:
            raise ConfigError(f"a scan is registered by its brain: give it as {self.mask_key}")
        to_scan, fit = locate(
            np.asarray(scan[0]), np.asarray(scan.affine), np.asarray(brain[0]) > 0.5
        )
        return {"to_scan": to_scan, "fit": asdict(fit)}

    def _take(self, scan: MetaTensor, place: Mapping[str, Any]) -> MetaTensor:
        affine, to_scan = np.asarray(scan.affine), np.asarray(place["to_scan"])
        planes = np.stack(
            [take_plane(channel, affine, to_scan, place["z_mm"]) for channel in np.asarray(scan)]
        )
        result = _with_affine(torch.as_tensor(planes), torch.eye(3, dtype=torch.float64), scan)
        result.meta.update(place)
        trace = {
            "to_scan": to_scan,
            "z_mm": place["z_mm"],
            "affine": scan.affine.clone(),
            "mode": "bilinear",
        }
        self.push_transform(result, orig_size=scan.shape[1:], extra_info=trace)
        return result

    def _flatten(self, scan: MetaTensor, key: Hashable) -> MetaTensor:
        affine = np.asarray(scan.affine)
        turn = ornt_transform(io_orientation(affine), axcodes2ornt(DISPLAY_AXES))
        turned = _turned(np.asarray(scan), turn)
        if turned.shape[-1] != 1:
            raise ConfigError(
                f"{key} is said to be an axial slice, and has {turned.shape[-1]} of them"
            )
        across = spacing(affine)[np.argsort(turn[:, 0])]
        pixels = torch.diag(torch.tensor([across[0], across[1], 1.0], dtype=torch.float64))
        result = _with_affine(torch.as_tensor(turned[..., 0].copy()), pixels, scan)
        back = ornt_transform(axcodes2ornt(DISPLAY_AXES), io_orientation(affine))
        shown = (
            affine
            @ inv_ornt_aff(turn, tuple(scan.shape[1:]))
            @ np.diag([*(1 / across[:2]), 1.0, 1.0])
        )
        trace = {"turn": back, "affine": scan.affine.clone(), "plane_affine": shown}
        self.push_transform(result, orig_size=scan.shape[1:], extra_info=trace)
        return result


def _turned(channels: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(C, I, J, K) with its spatial axes in another order and direction."""
    return np.moveaxis(apply_orientation(np.moveaxis(channels, 0, -1), turn), -1, 0)


def _with_affine(values: torch.Tensor, affine: torch.Tensor, like: MetaTensor) -> MetaTensor:
    meta = {name: value for name, value in like.meta.items() if name != MetaKeys.AFFINE}
    applied = list(like.applied_operations)
    return MetaTensor(values, affine=affine, meta=meta, applied_operations=applied)
