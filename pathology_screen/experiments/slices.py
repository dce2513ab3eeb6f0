"""The slices that an experiment looks at, prepared once for all methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch import Tensor

from pathology_screen.errors import ConfigError, ScreeningError, find_error
from pathology_screen.transforms import prepare_slices
from pathology_screen.transforms.annotations import AnnotatedSliced

HEALTHY, NORMAL, PATHOLOGICAL = "healthy", "normal", "pathological"
COVERED_SHARE = 0.5
"""A pixel of the grid belongs to a mask or box that covers more than this share of it."""


@dataclass(frozen=True)
class AnnotatedSlices:
    """Prepared slices and what is known of them. A group is "normal", or what the datalist calls
    the group of the finding, else "pathological"."""

    images: Tensor  # (N, 1, H, W) in [0, 1]
    subjects: np.ndarray  # (N,) names, the person of each
    pathology: np.ndarray  # (N,) names, "healthy" or the finding of each scan
    groups: np.ndarray  # (N,) names
    masks: Tensor  # (N, 1, H, W), share of each pixel that an annotation covers; else zeros
    boxes: tuple[Tensor, ...]  # of each slice (K, H, W), its annotated boxes, soft at their edges
    other_boxes: tuple[Tensor, ...]  # likewise those that are neither counted nor healthy
    box_labels: tuple[tuple[str, ...], ...]  # of each slice, the K names of its boxes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: Sequence[int] | np.ndarray) -> "AnnotatedSlices":
        """Those at these places, or where a mask (N,) is True; ConfigError if there is none."""
        index = np.arange(len(self))[list(chosen)]
        if not len(index):
            raise ConfigError("no slice is left to look at")
        kept: dict[str, Any] = {}
        for name, part in vars(self).items():
            kept[name] = tuple(part[i] for i in index) if type(part) is tuple else part[index]
        return AnnotatedSlices(**kept)

    @property
    def healthy(self) -> np.ndarray:
        """(N,), whether each shows a healthy person."""
        return self.pathology == HEALTHY

    @property
    def people(self) -> int:
        """Number of people."""
        return len(set(self.subjects))

    @property
    def lesions(self) -> Tensor:
        """Pixels (N, 1, H, W) of the masks."""
        return self.masks > COVERED_SHARE

    @property
    def shows_lesion(self) -> np.ndarray:
        """(N,), whether each shows a lesion with an outline."""
        return self.lesions.flatten(1).any(dim=1).numpy()

    @property
    def regions(self) -> Tensor:
        """Pixels (N, 1, H, W) of the mask of each slice, or of its boxes where it has none."""
        boxes = [(own > COVERED_SHARE).any(dim=0, keepdim=True) for own in self.boxes]
        pairs = zip(self.shows_lesion, self.lesions, boxes)
        return torch.stack([lesion if shows else box for shows, lesion, box in pairs])


def load_slices(items: Sequence[Mapping[str, Any]], preprocessing: Compose) -> AnnotatedSlices:
    """Prepare the slices of a datalist's items with the preprocessing of a bundle, and with them
    boxes, and masks by the paths at `label`; ConfigError if there is no item, or a scan is
    refused."""
    try:
        slices: Any = prepare_slices(items, AnnotatedSliced(preprocessing))
    except Exception as error:
        if (reason := find_error(error, ScreeningError)) is None:
            raise
        raise ConfigError("; ".join((*getattr(error, "__notes__", ()), str(reason)))) from error
    images = torch.stack([item["image"].as_tensor() for item in slices])
    nothing, no_box = torch.zeros_like(images[0]), torch.zeros(0, *images.shape[2:])
    pathology = [str(item.get("pathology", HEALTHY)) for item in slices]
    kinds = [NORMAL if name == HEALTHY else PATHOLOGICAL for name in pathology]
    return AnnotatedSlices(
        images,
        subjects=np.array([str(item["subject"]) for item in slices]),
        pathology=np.array(pathology),
        groups=np.array([str(item.get("group", kind)) for item, kind in zip(slices, kinds)]),
        masks=torch.stack([item.get("label", nothing) for item in slices]).float(),
        boxes=tuple(item.get("boxes_masks", no_box) for item in slices),
        other_boxes=tuple(item.get("other_boxes_masks", no_box) for item in slices),
        box_labels=tuple(tuple(item.get("boxes_labels", ())) for item in slices),
    )
