"""Boxes as fastMRI+ annotates them, and their masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Box(NamedTuple):
    """A box in whole pixels: x is the column and y the row of its upper left pixel."""

    x: int
    y: int
    width: int
    height: int

    def flipped(self, rows: int) -> Box:
        """The same box after the slice of this many rows was flipped up/down."""
        return self._replace(y=rows - self.y - self.height)


def box_masks(
    boxes: Sequence[Box | tuple[int, int, int, int]], shape: tuple[int, int]
) -> np.ndarray:
    """Draw boxes: K boxes on a slice (H, W) -> masks (K, H, W), float32, 0 or 1."""
    masks = np.zeros((len(boxes), *shape), np.float32)
    for mask, (x, y, width, height) in zip(masks, boxes):
        mask[y : y + height, x : x + width] = 1
    return masks
