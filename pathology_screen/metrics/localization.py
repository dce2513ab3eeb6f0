"""The localisation protocol of the paper (section 4.2, Appendix C.3, Figure 7): which annotated
boxes are found, and with how many false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.data import decollate_batch
from monai.metrics import CumulativeIterationMetric
from monai.utils import convert_to_tensor

from pathology_screen.errors import ConfigError, InputError

Protocol = Literal["paper", "official_code", "pixel_count"]
PROTOCOLS = ("paper", "official_code", "pixel_count")

DETECTED_SHARE = 0.1
"""A box is detected where more than this share of its pixels is tagged, as in Figure 7 and the released code; section
4.2 says "at least", which differs only where the share is met exactly."""

COVERED = 1e-3
"""A pixel belongs to a box where the soft mask is higher: resampling leaves traces of rounding, far below any true
share."""


class LocalizationMetric(CumulativeIterationMetric):
    """Detection of annotated boxes by thresholded anomaly maps, box by box.

    A pixel is tagged where the map exceeds the threshold. With A pixels in a box, those that it
    covers in part included, and a of them tagged, the box is detected, TP = 1, where a / A > 0.1.
    Sh is the sum of tagged map values over the healthy tissue of the slice, Sa that over the box,
    weighted by its mask. False positives are

    - "paper": FP = Sh / Sa;
    - "official_code": FP = floor(Sh / max(Sa, 1)), as the released code computes it, which depends
      on the unit of the map;
    - "pixel_count": FP = tagged healthy pixels / a, which does not change under any rising function
      of the map;

    and F1 = 2 P TP / (P + TP) with P = TP / (TP + FP): 2 / (2 + FP) for a detected box, else 0.
    Other boxes of the slice are neither healthy nor part of the box, and background counts nowhere
    but in A. A box with no pixels left on the grid is a miss.

    Args:
        threshold: at least 0; in the paper the one that at most 5 % of the pixels of 30 healthy
            slices exceed (`calibration.pixel_threshold`). The released code tags values equal to
            the threshold, too.
        classes: names of the classes, in the order of the table.
        protocol: default of `aggregate`.

    Raises:
        ConfigError: if the threshold is negative, a class is named twice, or the protocol is
            unknown.
    """

    def __init__(
        self, threshold: float, classes: Sequence[str], protocol: Protocol = "paper"
    ) -> None:
        super().__init__()
        if not threshold >= 0:
            raise ConfigError(f"the threshold of an anomaly map is at least 0, not {threshold}")
        if len(set(classes)) != len(classes):
            raise ConfigError("a class is named twice")
        _check_protocol(protocol)
        self.threshold, self.classes, self.protocol = threshold, tuple(classes), protocol

    def __call__(self, y_pred: Any, y: Any = None, **kwargs: Any) -> Any:
        """Add images.

        Args:
            y_pred: anomaly maps, a batch (B, 1, H, W) or a list of (1, H, W), at least 0.
            y: for each image a mapping of which three entries are used: "boxes", masks (K, H, W) in
                [0, 1] of its K boxes, soft after bilinear resizing; "healthy", mask (1, H, W) of
                tissue outside every box of the slice, True above 0.5; "labels", K names of classes.
                Or such a mapping as a `DataLoader` collates it. An image without boxes adds
                nothing.

        Returns:
            What was counted for each box, (n, 7) float64, for `box_scores`.

        Raises:
            ConfigError: if shapes or numbers do not go together, a mask exceeds [0, 1], or a class
                is unknown.
            InputError: "not_finite", if a map or mask holds NaN or infinite values; "no_tissue", if
                no healthy tissue is left in an image with boxes.
        """
        targets = decollate_batch(dict(y)) if isinstance(y, Mapping) else y
        if not isinstance(targets, list | tuple) or len(targets) != len(y_pred):
            raise ConfigError(
                "each anomaly map needs one target with boxes, healthy tissue and labels"
            )
        return super().__call__(y_pred, targets, **kwargs)

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> torch.Tensor:
        return torch.cat(
            [self._count(anomaly_map, target) for anomaly_map, target in zip(y_pred, y)]
        )

    def _compute_tensor(
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        raise NotImplementedError(
            "targets come as a list, for images differ in their number of boxes"
        )

    def extend(self, *data: Any) -> None:
        """Add rows; MONAI's own cannot add none."""
        if len(data[0]):
            super().extend(*data)

    def aggregate(self, protocol: Protocol | None = None) -> dict[str, Any]:
        """Summarise all boxes added since `reset`.

        Returns:
            "n", the number of boxes; "detected", how many of them were found; "f1", mean F1 over
            the boxes, 0 to 1 (the paper prints it x 100); "false_positives", mean FP over the
            *detected* boxes, NaN if there is none; "box_fraction" and "healthy_fraction", mean
            share of tagged pixels in the box and in the healthy tissue of its slice;
            "fraction_ratio", the first over the second: about 1 where boxes are found only because
            the map tags much of everything; "empty", boxes with no pixels left on the grid; and
            "per_class", the same for each class that occurs.

        Raises:
            ConfigError: if nothing was added or the protocol is unknown.
        """
        rows = self.get_buffer()
        if rows is None:
            raise ConfigError("no box was added, so there is nothing to summarise")
        scores = box_scores(rows, protocol or self.protocol)
        per_class = {
            name: _summary(
                {key: values[scores["label"] == index] for key, values in scores.items()}
            )
            for index, name in enumerate(self.classes)
            if index in scores["label"]
        }
        return {**_summary(scores), "per_class": per_class}

    def _count(self, anomaly_map: torch.Tensor, target: Mapping[str, Any]) -> torch.Tensor:
        values, boxes, healthy, labels = self._checked(anomaly_map, target)
        if not labels:
            return values.new_zeros((0, 7))
        tagged = values > self.threshold  # (1, H, W)
        kept, covered = values * tagged, boxes > COVERED
        columns = [
            torch.tensor([self.classes.index(label) for label in labels]),
            covered.sum((1, 2)),
            (tagged & covered).sum((1, 2)),
            (kept * boxes).sum((1, 2)),
            *(
                number.expand(len(labels))
                for number in (healthy.sum(), (tagged & healthy).sum(), kept[healthy].sum())
            ),
        ]
        return torch.stack([column.to(values) for column in columns], dim=1)

    def _checked(
        self, anomaly_map: torch.Tensor, target: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
        missing = [key for key in ("boxes", "healthy", "labels") if key not in target]
        if missing:
            raise ConfigError(f"a target of the localisation protocol lacks {', '.join(missing)}")
        values, boxes, healthy = (
            convert_to_tensor(
                mask, dtype=torch.float64, device=anomaly_map.device, track_meta=False
            )
            for mask in (anomaly_map.detach(), target["boxes"], target["healthy"])
        )
        labels = list(target["labels"])
        plane = values.shape[1:]
        if (
            values.shape != (1, *plane)
            or healthy.shape != values.shape
            or boxes.shape != (len(labels), *plane)
        ):
            raise ConfigError(
                f"a map {tuple(values.shape)}, healthy tissue {tuple(healthy.shape)}, boxes {tuple(boxes.shape)} and "
                f"{len(labels)} labels do not go together: expected (1, H, W) twice, (K, H, W) and K"
            )
        for name, array in (
            ("the anomaly map", values),
            ("a box", boxes),
            ("the healthy tissue", healthy),
        ):
            if not array.isfinite().all():
                raise InputError("not_finite", f"{name} given to the localisation protocol")
            if (array < 0).any() or (array > 1 + COVERED).any() and array is not values:
                raise ConfigError(
                    f"{name} holds values outside its range: maps are at least 0, masks within 0 and 1"
                )
        unknown = sorted(set(labels) - set(self.classes))
        if unknown:
            raise ConfigError(f"unknown classes {unknown}; known are {list(self.classes)}")
        if labels and not (healthy > 0.5).any():
            raise InputError("no_tissue", "no healthy tissue is left beside the boxes of the slice")
        return values, boxes, healthy > 0.5, labels


def box_scores(rows: torch.Tensor, protocol: Protocol = "paper") -> dict[str, np.ndarray]:
    """Score each box by itself, for example for a bootstrap over the subjects that the boxes come
    from.

    Args:
        rows: (n, 7), from `LocalizationMetric.__call__` or `get_buffer`, boxes in the order in
            which they were added.
        protocol: see `LocalizationMetric`.

    Returns:
        Arrays (n,): "label", index of the class; "detected", bool; "false_positives", NaN where it
        is undefined because nothing in the box is tagged; "f1", 0 to 1; "box_fraction" and
        "healthy_fraction", 0 to 1; "empty", bool.

    Raises:
        ConfigError: if the protocol is unknown.
    """
    _check_protocol(protocol)
    label, pixels, hits, inside, healthy_pixels, healthy_hits, outside = (
        rows.cpu().double().numpy().T
    )
    if protocol == "official_code":
        false_positives = np.floor(outside / np.maximum(inside, 1))
    else:
        false, true = (outside, inside) if protocol == "paper" else (healthy_hits, hits)
        false_positives = np.divide(false, true, out=np.full(len(rows), np.nan), where=true > 0)
    box_fraction = np.divide(hits, pixels, out=np.zeros(len(rows)), where=pixels > 0)
    detected = box_fraction > DETECTED_SHARE
    return {
        "label": label.astype(int),
        "detected": detected,
        "false_positives": false_positives,
        "f1": np.where(detected, 2 / (2 + false_positives), 0.0),
        "box_fraction": box_fraction,
        "healthy_fraction": healthy_hits / healthy_pixels,
        "empty": pixels == 0,
    }


def _summary(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    detected = scores["detected"]
    inside, outside = (float(scores[name].mean()) for name in ("box_fraction", "healthy_fraction"))
    return {
        "n": len(detected),
        "detected": int(detected.sum()),
        "f1": float(scores["f1"].mean()),
        "false_positives": float(scores["false_positives"][detected].mean())
        if detected.any()
        else float("nan"),
        "box_fraction": inside,
        "healthy_fraction": outside,
        "fraction_ratio": inside / outside if outside else float("inf" if inside else "nan"),
        "empty": int(scores["empty"].sum()),
    }


def _check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise ConfigError(f"the protocol is one of {', '.join(PROTOCOLS)}, not {protocol!r}")
