"""The healthy tissue of a slice that is annotated with boxes."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.space import tissue_mask


def healthy_tissue(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Tissue outside every box, the paper's "healthy tissue": background belongs neither to it nor
    to a box.

    Tissue is `tissue_mask` with holes filled, so that dark ventricles count; the paper does not say
    how it was found.

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
