"""The localisation protocol of the paper (section 4.2, Appendix C.3, Figure 7): which annotated
boxes are found, and with how many false alarms."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from pathology_screen.errors import InputError
from pathology_screen.space import tissue_mask

Protocol = Literal["paper", "official_code", "pixel_count"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

DETECTED_SHARE = 0.1
"""A box is detected where more than this share of its pixels is tagged, as in Figure 7 and the
released code; section 4.2 says "at least", which differs only where the share is met exactly."""

COVERED = 1e-3
"""A pixel belongs to a box where the soft mask is higher: resampling leaves traces."""


def healthy_tissue(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The tissue of a slice (H, W) outside *all* of its boxes (K, H, W), the paper's "healthy
    tissue": (1, H, W), float32, 0 or 1. Tissue is `tissue_mask` with holes filled, so that dark
    ventricles count; the paper does not say how it was found. InputError "no_tissue" if the slice
    has none."""
    tissue = binary_fill_holes(tissue_mask(image))
    if not tissue.any():
        raise InputError("no_tissue", "the annotated slice holds no positive intensity")
    return (tissue & ~(boxes > 0).any(axis=0))[None].astype(np.float32)


def count_tagged(
    anomaly_map: Tensor, boxes: Tensor, healthy: Tensor, threshold: float
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
        InputError: "not_finite", if the map holds NaN or infinite values; "no_tissue", if boxes
            leave no healthy tissue.
    """
    values, masks, normal = anomaly_map.double(), boxes.double(), healthy > 0.5
    if not torch.isfinite(values).all():
        raise InputError("not_finite", "the anomaly map given to the localisation protocol")
    if len(masks) and not normal.any():
        raise InputError("no_tissue", "no healthy tissue is left beside the boxes of the slice")
    tagged, covered = values > threshold, masks > COVERED
    kept = values * tagged
    inside = [each.sum((1, 2)) for each in (covered, tagged & covered, kept * masks)]
    beside = [each.sum().expand(len(masks)) for each in (normal, tagged & normal, kept * normal)]
    return torch.stack([each.double() for each in inside + beside], dim=1).cpu().numpy()


def box_scores(counts: np.ndarray, protocol: Protocol = "paper") -> dict[str, np.ndarray]:
    """Score each box by itself, from rows (n, 6) of `count_tagged`.

    With A pixels in a box, of which a are tagged, the box is detected, TP = 1, where a / A > 0.1; a
    box with no pixels left on the grid is a miss. With Sh the sum of tagged map values over the
    healthy tissue of the slice, and Sa that over the box, false positives are

    - "paper": FP = Sh / Sa;
    - "official_code": FP = floor(Sh / max(Sa, 1)), as the released code computes it, which depends
      on the unit of the map;
    - "pixel_count": FP = tagged healthy pixels / a, the same under any rising function;

    and F1 = 2 P TP / (P + TP) with P = TP / (TP + FP): 2 / (2 + FP) for a detected box, else 0.
    Other boxes are neither healthy nor part of the box; background counts only in A.

    Returns:
        Arrays (n,): "detected", bool; "false_positives", NaN where nothing in the box is tagged;
        "f1", 0 to 1; "box_fraction" and "healthy_fraction", share of tagged pixels in the box and
        in the healthy tissue of its slice; "empty", bool.
    """
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
    everything."""
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
