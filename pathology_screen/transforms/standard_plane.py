"""Take a scan and its brain to the standard plane of MNI152 space, and a result back."""

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, InvertibleTransform, MapTransform
from monai.transforms.utils import allow_missing_keys_mode, convert_applied_interp_mode
from monai.utils import MetaKeys, TraceKeys, convert_to_tensor
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from pathology_screen.errors import ConfigError
from pathology_screen.geometry import DISPLAY_AXES, spacing
from pathology_screen.space import (
    PLANE_Z,
    check_fit,
    find_brain,
    plane_affine,
    put_back,
    register,
    take_plane,
)


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

    def __init__(self, keys: KeysCollection, mask_key: str = "brain") -> None:
        super().__init__(keys)
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


class StandardPlaned(MapTransform, InvertibleTransform):
    """Take the axial plane of MNI152 space: (C, I, J, K) -> (C, 233, 197), float32.

    The brain is registered to the template, and the plane resampled once from the scan's own
    voxels: rows from anterior to posterior, columns to the patient's left, 1 mm. The affine (3, 3)
    is in mm of the plane, so that MONAI's transforms work on it in two dimensions. The meta data
    hold `z_mm`, `to_scan` ((4, 4), MNI152 mm -> scanner mm) and `fit` (the fields of `space.Fit`);
    where those of the scan hold `to_scan` and `fit` already, it is not registered again, and needs
    no brain. The inverse puts values (C, 233, 197) on the voxels that the plane cuts, 0 elsewhere
    (`space.put_back`).

    The mask of the brain is taken along, to (1, 233, 197), 0 or 1, so that intensities can be
    scaled by the brain.

    An item with `axial_slice: true` is such a slice already: (C, H, W, 1) -> (C, H, W).

    Args:
        keys: keys of the scan, which is registered, and of what lies on its voxels (masks), which
            is resampled alike.
        mask_key: key of the brain in the first, see `ExtractBraind`.
        z_mm: level of the plane in mm; a `z_mm` in the item comes before it.
        domain: "whole_head", or "brain_extracted", which sets the first to 0 outside.

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
    ) -> None:
        super().__init__(keys)
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
        place = _located(first, brain, self.mask_key)
        place["z_mm"] = float(d.get("z_mm", self.z_mm))
        for key in dict.fromkeys(keys if brain is None else [*keys, self.mask_key]):
            alike = d[key].shape[1:] == first.shape[1:]
            if not alike or not np.allclose(d[key].affine, first.affine, atol=1e-3):
                raise ConfigError(f"{key} does not lie on the voxels of the item's first image")
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
            values = np.asarray(image)
            if "turn" in trace:
                volume = _turned(values[..., None], trace["turn"]).copy()
            else:
                to_scan, affine = np.asarray(trace["to_scan"]), np.asarray(trace["affine"])
                place = (to_scan, trace["z_mm"], size, affine, int(trace["mode"] != "nearest"))
                volumes = [put_back(plane, *place)[0] for plane in values.astype(np.float32)]
                volume = np.stack(volumes) if len(volumes) > 1 else volumes[0][None]
            d[key] = _with_affine(torch.as_tensor(volume), trace["affine"], image)
        return d

    def _take(self, scan: MetaTensor, place: Mapping[str, Any]) -> MetaTensor:
        where = (np.asarray(scan.affine), np.asarray(place["to_scan"]), place["z_mm"])
        planes = np.stack([take_plane(channel, *where) for channel in np.asarray(scan)])
        result = _with_affine(torch.as_tensor(planes), torch.eye(3, dtype=torch.float64), scan)
        result.meta.update(place)
        trace = {"to_scan": where[1], "z_mm": where[2], "mode": "bilinear"}
        trace["affine"] = scan.affine.clone()
        self.push_transform(result, orig_size=scan.shape[1:], extra_info=trace)
        return result

    def _flatten(self, scan: MetaTensor, key: Hashable) -> MetaTensor:
        affine = np.asarray(scan.affine)
        stored, shown = io_orientation(affine), axcodes2ornt(DISPLAY_AXES)
        turn = ornt_transform(stored, shown)
        turned = _turned(np.asarray(scan), turn)
        if (count := turned.shape[-1]) != 1:
            raise ConfigError(f"{key} is said to be an axial slice, and has {count} of them")
        row, column, _ = spacing(affine)[np.argsort(turn[:, 0])]
        pixels = torch.diag(torch.tensor([row, column, 1.0], dtype=torch.float64))
        result = _with_affine(torch.as_tensor(turned[..., 0].copy()), pixels, scan)
        to_stored = inv_ornt_aff(turn, tuple(scan.shape[1:]))
        trace = {
            "turn": ornt_transform(shown, stored),
            "affine": scan.affine.clone(),
            "plane_affine": affine @ to_stored @ np.diag([1 / row, 1 / column, 1.0, 1.0]),
        }
        self.push_transform(result, orig_size=scan.shape[1:], extra_info=trace)
        return result


def slice_affines(image: MetaTensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return where the pixels of a slice (1, H, W) lie that a bundle's preprocessing gave: (4, 4),
    (row, column, 0, 1) -> RAS+ mm of the scan; and the same to mm of MNI152 space, None for a slice
    that was not registered."""
    name = StandardPlaned.__name__
    trace = next(op for op in image.applied_operations if op[TraceKeys.CLASS_NAME] == name)
    info = trace[TraceKeys.EXTRA_INFO]
    in_plane = np.asarray(image.affine, float)  # (3, 3), pixel -> row and column of the plane
    pixel = np.eye(4)
    pixel[:2, :2], pixel[:2, 3] = in_plane[:2, :2], in_plane[:2, 2]
    if "to_scan" not in info:
        return np.asarray(info["plane_affine"]) @ pixel, None
    to_mni = plane_affine(info["z_mm"]) @ pixel
    return np.asarray(info["to_scan"]) @ to_mni, to_mni


def shown_pixels(image: MetaTensor) -> np.ndarray:
    """Tell the pixels of a prepared slice (1, H, W) that show the plane from those that padding
    added: bool (H, W)."""
    shown = np.ones(image.shape[1:], bool)
    for operation in image.applied_operations:
        if "padded" in (extra := operation.get(TraceKeys.EXTRA_INFO, {})):
            sides = zip(extra["padded"][1:], shown.shape)
            rows, columns = (slice(low, n - high) for (low, high), n in sides)
            inside = np.zeros_like(shown)
            inside[rows, columns] = True
            shown &= inside
    return shown


def slice_to_scan(
    preprocessing: Compose,
    image: MetaTensor,
    values: torch.Tensor | np.ndarray,
    nearest: bool = False,
) -> MetaTensor:
    """Take values of the pixels of a slice, both (1, H, W), to the voxels of its scan by the
    transform that gave the slice: (1, I, J, K), float32, zero where the plane does not cut the
    scan. Labels are not interpolated: for them ask for the `nearest`."""
    done = list(image.applied_operations)
    if nearest:
        done = convert_applied_interp_mode(done, mode="nearest", align_corners=None)
    plain = convert_to_tensor(values, dtype=torch.float32, track_meta=False)
    meta = dict(image.meta)
    moved: Any = MetaTensor(plain, affine=image.affine, meta=meta, applied_operations=done)
    with allow_missing_keys_mode(preprocessing):
        return preprocessing.inverse({"image": moved})["image"]


def _located(scan: MetaTensor, brain: MetaTensor | None, mask_key: str) -> dict[str, Any]:
    if "to_scan" in scan.meta and "fit" in scan.meta:
        return {name: scan.meta[name] for name in ("to_scan", "fit")}
    if brain is None:
        raise ConfigError(f"a scan is registered by its brain: give it as {mask_key}")
    inside = np.asarray(brain[0]) > 0.5
    to_scan, fit = register(np.asarray(scan[0]), np.asarray(scan.affine), inside)
    check_fit(fit)
    return {"to_scan": to_scan, "fit": asdict(fit)}


def _turned(channels: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(C, I, J, K) with its spatial axes in another order and direction."""
    return np.moveaxis(apply_orientation(np.moveaxis(channels, 0, -1), turn), -1, 0)


def _with_affine(values: torch.Tensor, affine: torch.Tensor, like: MetaTensor) -> MetaTensor:
    meta = {name: value for name, value in like.meta.items() if name != MetaKeys.AFFINE}
    applied = list(like.applied_operations)
    return MetaTensor(values, affine=affine, meta=meta, applied_operations=applied)
