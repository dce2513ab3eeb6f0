"""The slices that an experiment looks at, prepared once for all methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from monai.transforms import Compose
from torch import Tensor

from pathology_screen.errors import ConfigError, ScreeningError
from pathology_screen.transforms import prepare_slices
from pathology_screen.transforms.annotations import AnnotatedSliced

HEALTHY, NORMAL, PATHOLOGICAL = "healthy", "normal", "pathological"
LISTED = ("subjects", "pathology", "groups", "boxes", "other_boxes", "box_labels")
"""Attributes that hold one entry a slice."""


@dataclass(frozen=True)
class Slices:
    """Prepared slices and what is known of them.

    Attributes:
        images: (N, 1, H, W) in [0, 1].
        subjects: the person of each.
        pathology: "healthy" or the name of the finding, of each scan.
        groups: "normal", or the group of findings that the datalist names; "pathological" where it
            names none.
        masks: (N, 1, H, W), share of each pixel that an annotation covers; zeros where the scan has
            none.
        boxes: of each slice, its K annotated boxes as masks (K, H, W), soft at their edges.
        other_boxes: likewise those that are neither counted nor healthy.
        box_labels: of each slice, the K names of its boxes.
    """

    images: Tensor
    subjects: tuple[str, ...]
    pathology: tuple[str, ...]
    groups: tuple[str, ...]
    masks: Tensor
    boxes: tuple[Tensor, ...]
    other_boxes: tuple[Tensor, ...]
    box_labels: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: Sequence[int]) -> Slices:
        """The slices at these places."""
        index = list(chosen)
        if not index:
            raise ConfigError("no slice is left to look at")
        listed = {name: tuple(getattr(self, name)[i] for i in index) for name in LISTED}
        return replace(self, images=self.images[index], masks=self.masks[index], **listed)

    def healthy(self) -> Slices:
        """Those of healthy people.

        Raises:
            ConfigError: if there is none.
        """
        return self[[i for i, name in enumerate(self.pathology) if name == HEALTHY]]


def load_slices(items: Sequence[Mapping[str, Any]], preprocessing: Compose) -> Slices:
    """Prepare the slices of scans, and with them masks and boxes.

    Args:
        items: of a datalist, with `image` and `subject`, and perhaps `pathology` (healthy where
            absent), `group`, `boxes`, `other_boxes` and `label`, the path of a mask.
        preprocessing: of a bundle.

    Raises:
        ConfigError: if there is no item, or a scan is refused.
    """
    try:
        slices: Any = prepare_slices(items, AnnotatedSliced(preprocessing))
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise ConfigError("; ".join((*getattr(error, "__notes__", ()), str(reason)))) from error
    images = torch.stack([item["image"].as_tensor() for item in slices])
    masks = [item["label"] if "label" in item else torch.zeros_like(images[0]) for item in slices]
    pathology = tuple(str(item.get("pathology", HEALTHY)) for item in slices)
    return Slices(
        images,
        subjects=tuple(str(item["subject"]) for item in slices),
        pathology=pathology,
        groups=tuple(
            str(item.get("group", NORMAL if name == HEALTHY else PATHOLOGICAL))
            for item, name in zip(slices, pathology)
        ),
        masks=torch.stack(masks).float(),
        boxes=tuple(_boxes(item, "boxes")[0] for item in slices),
        other_boxes=tuple(_boxes(item, "other_boxes")[0] for item in slices),
        box_labels=tuple(_boxes(item, "boxes")[1] for item in slices),
    )


def _boxes(item: Mapping[str, Any], name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Masks and labels of the boxes on a slice."""
    if f"{name}_masks" not in item:
        return torch.zeros(0, *item["image"].shape[1:]), ()
    return item[f"{name}_masks"], tuple(item[f"{name}_labels"])


def _reason(error: BaseException | None) -> ScreeningError | None:
    """The error of this package that MONAI wrapped, if there is one."""
    while error is not None and not isinstance(error, ScreeningError):
        error = error.__cause__
    return error
