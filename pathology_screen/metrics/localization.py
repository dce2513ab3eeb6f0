"""The localisation protocol of the paper (section 4.2, Appendix C.3, Figure 7): which annotated
boxes are found, and with how many false alarms."""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from monai.utils import convert_to_tensor
from scipy.ndimage import binary_fill_holes

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.space import tissue_mask

Protocol = Literal["paper", "official_code", "pixel_count"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

DETECTED_SHARE = 0.1
"""A box is detected where more than this share of its pixels is tagged, as in Figure 7 and the
released code; section 4.2 says "at least", which differs only where the share is met exactly."""

COVERED = 1e-3
"""A pixel belongs to a box where the soft mask is higher: resampling leaves traces."""


def healthy_tissue(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Find the tissue of a slice (H, W) outside *all* of its boxes (K, H, W), the paper's "healthy
    tissue": (1, H, W), float32, 0 or 1. Tissue is `tissue_mask` with holes filled, so that dark
    ventricles count; the paper does not say how it was found.

    Raises:
        ConfigError: if the shapes do not go together.
        InputError: "no_tissue", if nothing in the slice is tissue.

    >>> boxes = np.zeros((1, 4, 4))
    >>> boxes[0, :2] = 1
    >>> healthy_tissue(np.ones((4, 4)), boxes).sum()
    np.float32(8.0)
    """
    if image.ndim != 2 or boxes.shape[1:] != image.shape:
        raise ConfigError(f"boxes {boxes.shape} do not lie on a slice {image.shape}")
    tissue = binary_fill_holes(tissue_mask(image))
    if not tissue.any():
        raise InputError("no_tissue", "the annotated slice holds no positive intensity")
    return (tissue & ~(boxes > 0).any(axis=0))[None].astype(np.float32)


def count_tagged(
    anomaly_map: torch.Tensor, boxes: torch.Tensor, healthy: torch.Tensor, threshold: float
) -> np.ndarray:
    """Count what a map tags in each box of a slice and in its healthy tissue. A pixel is tagged
    where the map exceeds the threshold.

    Args:
        anomaly_map: (1, H, W), at least 0.
        boxes: masks (K, H, W) in [0, 1], soft; pixels covered in part belong to the box.
        healthy: mask (1, H, W) of tissue outside every box of the slice, True above 0.5.
        threshold: at least 0; in the paper the one that at most 5 % of the pixels of 30 healthy
            slices exceed (`calibration.pixel_threshold`). The released code tags values equal to
            the threshold, too.

    Returns:
        A row a box for `box_scores`, (K, 6), float64: pixels, tagged pixels and sum of the tagged
        values, weighted by the mask, of the box; the same of the healthy tissue.

    Raises:
        ConfigError: if shapes do not go together, or a value is out of range.
        InputError: "not_finite", if a map or mask holds NaN or infinite values; "no_tissue", if
            boxes leave no healthy tissue.

    >>> box = torch.zeros(1, 2, 2)
    >>> box[0, 0] = 1
    >>> count_tagged(torch.tensor([[[1.0, 0.0], [0.5, 0.0]]]), box, 1 - box, threshold=0.2).tolist()
    [[2.0, 1.0, 1.0, 2.0, 1.0, 0.5]]
    """
    if not threshold >= 0:
        raise ConfigError(f"the threshold of an anomaly map is at least 0, not {threshold}")
    given = {"the anomaly map": anomaly_map, "a box": boxes, "the healthy tissue": healthy}
    values, masks, tissue = (
        convert_to_tensor(mask, dtype=torch.float64, track_meta=False) for mask in given.values()
    )
    plane = values.shape[1:]
    if not values.shape == tissue.shape == (1, *plane) or masks.shape != (len(masks), *plane):
        raise ConfigError(
            f"a map {tuple(values.shape)}, healthy tissue {tuple(tissue.shape)} and boxes "
            f"{tuple(masks.shape)} do not go together: expected (1, H, W) twice and (K, H, W)"
        )
    for name, array in zip(given, (values, masks, tissue)):
        low, high = map(float, array.aminmax()) if len(array) else (0.0, 0.0)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("not_finite", f"{name} given to the localisation protocol")
        if low < 0 or high > 1 + COVERED and array is not values:
            raise ConfigError(
                f"{name} holds values outside its range: maps are at least 0, masks within 0 and 1"
            )
    normal = tissue > 0.5
    if len(masks) and not normal.any():
        raise InputError("no_tissue", "no healthy tissue is left beside the boxes of the slice")
    tagged, covered = values > threshold, masks > COVERED
    kept = values * tagged
    beside = (normal.sum(), (tagged & normal).sum(), (kept * normal).sum())
    columns = [
        covered.sum((1, 2)),
        (tagged & covered).sum((1, 2)),
        (kept * masks).sum((1, 2)),
        *(number.expand(len(masks)) for number in beside),
    ]
    return torch.stack([column.double() for column in columns], dim=1).cpu().numpy()


def box_scores(counts: np.ndarray, protocol: Protocol = "paper") -> dict[str, np.ndarray]:
    """Score each box by itself.

    With A pixels in a box, of which a are tagged, the box is detected, TP = 1, where a / A > 0.1; a
    box with no pixels left on the grid is a miss. With Sh the sum of tagged map values over the
    healthy tissue of the slice, and Sa that over the box, false positives are

    - "paper": FP = Sh / Sa;
    - "official_code": FP = floor(Sh / max(Sa, 1)), as the released code computes it, which depends
      on the unit of the map;
    - "pixel_count": FP = tagged healthy pixels / a, the same under any rising function;

    and F1 = 2 P TP / (P + TP) with P = TP / (TP + FP): 2 / (2 + FP) for a detected box, else 0.
    Other boxes are neither healthy nor part of the box; background counts only in A.

    Args:
        counts: (n, 6), rows of `count_tagged`.
        protocol: of the false positives; ConfigError, if it is unknown.

    Returns:
        Arrays (n,): "detected", bool; "false_positives", NaN where nothing in the box is tagged;
        "f1", 0 to 1; "box_fraction" and "healthy_fraction", share of tagged pixels in the box and
        in the healthy tissue of its slice; "empty", bool.

    >>> scores = box_scores(np.array([[2.0, 1.0, 1.0, 2.0, 1.0, 0.5]]))
    >>> scores["detected"].item(), scores["false_positives"].item(), scores["f1"].item()
    (True, 0.5, 0.8)
    """
    check_protocol(protocol)
    pixels, hits, inside, healthy_pixels, healthy_hits, outside = counts.T
    if protocol == "official_code":
        false_positives = np.floor(outside / np.maximum(inside, 1))
    else:
        false, true = (outside, inside) if protocol == "paper" else (healthy_hits, hits)
        false_positives = np.divide(false, true, out=np.full(len(counts), np.nan), where=true > 0)
    box_fraction = np.divide(hits, pixels, out=np.zeros(len(counts)), where=pixels > 0)
    detected = box_fraction > DETECTED_SHARE
    return {
        "detected": detected,
        "false_positives": false_positives,
        "f1": np.where(detected, 2 / (2 + false_positives), 0.0),
        "box_fraction": box_fraction,
        "healthy_fraction": healthy_hits / healthy_pixels,
        "empty": pixels == 0,
    }


def box_summary(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Summarise `box_scores` of one box or more: the number of boxes "n", how many are "detected"
    and "empty", and means: "f1" (the paper prints it x 100), "false_positives" of the *detected*
    boxes (NaN if there is none), "box_fraction" and "healthy_fraction"; "fraction_ratio" is the
    first of these over the second: about 1 where boxes are found only because the map tags much of
    everything.

    >>> summary = box_summary(box_scores(np.array([[2.0, 1.0, 1.0, 2.0, 1.0, 0.5]])))
    >>> summary["n"], summary["detected"], summary["f1"], summary["fraction_ratio"]
    (1, 1, 0.8, 1.0)
    """
    detected = scores["detected"]
    inside, outside = (float(scores[name].mean()) for name in ("box_fraction", "healthy_fraction"))
    false_positives = scores["false_positives"][detected]
    return {
        "n": len(detected),
        "detected": int(detected.sum()),
        "f1": float(scores["f1"].mean()),
        "false_positives": float(false_positives.mean()) if detected.any() else float("nan"),
        "box_fraction": inside,
        "healthy_fraction": outside,
        "fraction_ratio": inside / outside if outside else float("inf" if inside else "nan"),
        "empty": int(scores["empty"].sum()),
    }


def check_protocol(protocol: str) -> None:
    """Raise a ConfigError if there is no such protocol."""
    if protocol not in PROTOCOLS:
        raise ConfigError(f"the protocol is one of {', '.join(PROTOCOLS)}, not {protocol!r}")
