"""Annotated boxes of a scan as masks that go the way of its voxels."""

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
        ConfigError: if a box leaves the scan or has no area.
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
            (x, y, width, height), level = box["box"], box["slice"]
            inside = min(x, y, level) >= 0 and x + width <= shape[0] and y + height <= shape[1] and level < shape[2]
            if not inside or min(width, height) < 1:
                raise ConfigError(f"the box {box} is no part of a scan of {shape} voxels: correct the datalist")
            mask[x : x + width, y : y + height, level] = 1
        return MetaTensor(masks, affine=scan.affine)
