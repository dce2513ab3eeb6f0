"""Annotated boxes of a scan as masks that go the way of its voxels, and those that its axial slice shows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from pathology_screen.errors import ConfigError

BOX_KEYS = ("boxes", "other_boxes")


class DrawBoxesd(Transform):
    """Draw the boxes of an item on the voxels of its loaded scan (1, I, J, L), a channel each.

    `boxes` and `other_boxes`, which are neither counted nor healthy, become `boxes_masks` and `other_boxes_masks`,
    MetaTensors (K, I, J, L) of 0 and 1, and `boxes_labels`, the K names of the first. An item without boxes is passed
    on as it is.

    Args:
        key: key of the scan.

    Raises:
        ConfigError: if a box leaves the scan, has no area or no label, or is not in whole voxels.
    """

    def __init__(self, key: Hashable = "image") -> None:
        self.key = key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        drawn = dict(data)
        for name in BOX_KEYS:
            boxes = data.get(name) or []
            if boxes:
                drawn[f"{name}_masks"] = self._draw(data[self.key], boxes)
                drawn[f"{name}_labels"] = [str(box["label"]) for box in boxes]
        return drawn

    def _draw(self, scan: Any, boxes: list[Mapping[str, Any]]) -> MetaTensor:
        shape = tuple(scan.shape[1:])
        masks = torch.zeros(len(boxes), *shape)
        for mask, box in zip(masks, boxes):
            numbers = (*box.get("box", ()), box.get("slice"))
            if "label" not in box or not _is_part(numbers, shape):
                raise ConfigError(f"the box {box} is no part of a scan of {shape} voxels: correct the datalist")
            x, y, width, height, level = numbers
            mask[x : x + width, y : y + height, level] = 1
        return MetaTensor(masks, affine=scan.affine)


class BoxesOnSliced(Transform):
    """Leave out the boxes that do not lie on the axial slice of their item; masks (K, H, W) and K names.

    Comes between `AxialSliced` and the grid, on which a small box may lose its last pixel and still belong to the
    slice. An item without a box on the slice loses the masks and names of boxes.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        kept = dict(data)
        for name in BOX_KEYS:
            if f"{name}_masks" in kept:
                masks, labels = kept.pop(f"{name}_masks"), kept.pop(f"{name}_labels")
                here = [i for i, mask in enumerate(masks) if mask.any()]
                if here:
                    kept[f"{name}_masks"], kept[f"{name}_labels"] = masks[here], [labels[i] for i in here]
        return kept


def _is_part(numbers: tuple[Any, ...], shape: tuple[int, ...]) -> bool:
    """Whether x, y, width, height and level are whole numbers that name voxels of a scan."""
    if len(numbers) != 5 or not all(isinstance(number, int) for number in numbers):
        return False
    x, y, width, height, level = numbers
    inside = x + width <= shape[0] and y + height <= shape[1] and level < shape[2]
    return inside and min(x, y, level) >= 0 and min(width, height) > 0
