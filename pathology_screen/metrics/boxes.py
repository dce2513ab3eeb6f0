"""Bounding boxes of annotated slices as masks, in the pixels of the slice.

From there `transforms.ResampleToGridd` takes them to the grid of the network; with `millimetres=None, antialias=False`
by the paper's pad to square and bilinear resize, after which masks of boxes are soft. As NIfTI files, one channel a
box, they go with their image through `eval_transforms(mask_keys=...)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_fill_holes

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.space import tissue_mask


class Box(NamedTuple):
    """A box in whole pixels: x is the column and y the row of its upper left pixel."""

    x: int
    y: int
    width: int
    height: int

    def flipped(self, rows: int) -> Box:
        """The same box after the slice of this many rows was flipped up/down.

        fastMRI+ boxes belong to the displayed slice, which shows the rows of the stored reconstruction in reverse.
        """
        return self._replace(y=rows - self.y - self.height)


def box_masks(boxes: Sequence[Box | tuple[int, int, int, int]], shape: tuple[int, int]) -> np.ndarray:
    """Draw boxes: K boxes on a slice (H, W) -> masks (K, H, W), float32, 0 or 1.

    Raises:
        ConfigError: if a box has no area (fastMRI+ holds such), is not in whole pixels, or leaves the slice.
    """
    masks = np.zeros((len(boxes), *shape), np.float32)
    for mask, (x, y, width, height) in zip(masks, boxes):
        whole = all(float(number).is_integer() for number in (x, y, width, height))
        inside = min(x, y) >= 0 and x + width <= shape[1] and y + height <= shape[0]
        if not (whole and inside and min(width, height) > 0):
            raise ConfigError(
                f"the box x={x}, y={y}, width={width}, height={height} is no part of a slice of {shape[0]} rows and "
                f"{shape[1]} columns: drop or correct it in the table of annotations"
            )
        mask[int(y) : int(y + height), int(x) : int(x + width)] = 1
    return masks


def healthy_tissue(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Tissue outside every box, the paper's "healthy tissue": background belongs neither to it nor to a box.

    Tissue is `tissue_mask` with holes filled, so that dark ventricles count; the paper does not say how it was found.

    Args:
        image: intensities (H, W).
        boxes: masks (K, H, W) of *all* boxes of the slice, also of classes that are not evaluated.

    Returns:
        (1, H, W), float32, 0 or 1.

    Raises:
        ConfigError: if the shapes do not go together.
        InputError: "no_tissue", if nothing in the slice is tissue.
    """
    if image.ndim != 2 or boxes.shape[1:] != image.shape:
        raise ConfigError(f"boxes {boxes.shape} do not lie on a slice {image.shape}")
    tissue = binary_fill_holes(tissue_mask(image))
    if not tissue.any():
        raise InputError("no_tissue", "the annotated slice holds no positive intensity")
    return (tissue & ~(boxes > 0).any(axis=0))[None].astype(np.float32)
