"""Where the pixels of a prepared slice lie, and the way back to the voxels of its scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.transforms.utils import allow_missing_keys_mode, convert_applied_interp_mode
from monai.utils import TraceKeys, convert_to_tensor
from torch import Tensor

from pathology_screen.space import plane_affine
from pathology_screen.transforms.standard_plane import StandardPlaned


def slice_affines(image: MetaTensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Find where the pixels of a prepared slice lie.

    Args:
        image: (1, H, W), that a bundle's preprocessing gave.

    Returns:
        (4, 4), (row, column, 0, 1) -> RAS+ mm of the scan; and the same to mm of MNI152 space, None
        for a slice that was not registered.
    """
    trace = next(
        op for op in image.applied_operations if op[TraceKeys.CLASS_NAME] == StandardPlaned.__name__
    )
    info = trace[TraceKeys.EXTRA_INFO]
    in_plane = np.asarray(image.affine, float)  # (3, 3), pixel -> row and column of the plane
    pixel = np.eye(4)
    pixel[:2, :2], pixel[:2, 3] = in_plane[:2, :2], in_plane[:2, 2]
    if "to_scan" not in info:
        return np.asarray(info["plane_affine"]) @ pixel, None
    to_mni = plane_affine(info["z_mm"]) @ pixel
    return np.asarray(info["to_scan"]) @ to_mni, to_mni


def slice_to_scan(
    preprocessing: Compose, image: MetaTensor, values: Tensor | np.ndarray, nearest: bool = False
) -> MetaTensor:
    """Take what was computed of a slice to the voxels of its scan.

    Args:
        preprocessing: that gave the slice.
        image: the slice, (1, H, W).
        values: (1, H, W), of its pixels.
        nearest: whether values are labels, which are not interpolated.

    Returns:
        (1, I, J, K), float32, zero where the plane does not cut the scan.
    """
    operations = list(image.applied_operations)
    if nearest:
        operations = convert_applied_interp_mode(operations, mode="nearest", align_corners=None)
    plain = convert_to_tensor(values, dtype=torch.float32, track_meta=False)
    moved: Any = MetaTensor(
        plain, affine=image.affine, meta=dict(image.meta), applied_operations=operations
    )
    with allow_missing_keys_mode(preprocessing):
        return preprocessing.inverse({"image": moved})["image"]
