"""The annotations of a scan, a mask and boxes, brought onto its prepared slice."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImage, Resized, SpatialPadd, Transform

from pathology_screen.errors import ConfigError
from pathology_screen.transforms.standard_plane import StandardPlaned

BOX_KEYS = ("boxes", "other_boxes")


class AnnotatedSliced(Transform):
    """Prepare the slice of an item, and bring its annotations the same way: each becomes the share
    of every pixel that it covers, 0 to 1.

    `label`, the path of a mask on the voxels of the scan, becomes (1, H, W). `boxes` and
    `other_boxes`, which are neither counted nor healthy, become `boxes_masks` and
    `other_boxes_masks`, (K, H, W), a channel each, and `boxes_labels` and `other_boxes_labels`,
    their K names; those that the slice does not show, and empty keys, are left out.

    Args:
        preprocessing: of a bundle.

    Raises:
        ConfigError: if a mask does not lie on the voxels of its scan, or a box leaves the scan, has
            no area or no label, or is not in whole voxels.
    """

    def __init__(self, preprocessing: Compose) -> None:
        self.preprocessing = preprocessing
        geometric = (StandardPlaned, Resized, SpatialPadd)
        steps = [step for step in preprocessing.transforms if isinstance(step, geometric)]
        self.geometry = Compose(steps)
        self.load = LoadImage(image_only=True, ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d: Any = self.preprocessing(dict(data))
        image = d["image"]
        if "label" in data:
            mask = self.load(data["label"])
            shape, affine = self._grid(image)
            if tuple(mask.shape[1:]) != shape or not np.allclose(mask.affine, affine, atol=1e-3):
                raise ConfigError("the mask `label` does not lie on the voxels of its scan")
            d["label"] = self._on_slice(np.asarray(mask), image)
        for name in BOX_KEYS:
            if not (boxes := data.get(name)):
                continue
            drawn = self._on_slice(_draw(boxes, self._grid(image)[0]), image)
            shown = [i for i, mask in enumerate(drawn) if mask.any()]
            if shown:
                d[f"{name}_masks"] = drawn[shown]
                d[f"{name}_labels"] = [str(boxes[i]["label"]) for i in shown]
        return d

    @staticmethod
    def _grid(image: MetaTensor) -> tuple[tuple[int, ...], np.ndarray]:
        return tuple(image.meta["volume_shape"]), np.asarray(image.meta["volume_affine"])

    def _on_slice(self, masks: np.ndarray, image: MetaTensor) -> torch.Tensor:
        """(K, I, J, L) -> (K, H, W), with the registration of the image."""
        registered = "to_scan" in image.meta
        known = {name: image.meta[name] for name in ("to_scan", "fit")} if registered else {}
        affine = torch.as_tensor(self._grid(image)[1])
        scan = MetaTensor(torch.as_tensor(masks), affine=affine, meta=known)
        how = {"z_mm": image.meta["z_mm"]} if registered else {"axial_slice": True}
        return self.geometry({"image": scan} | how)["image"].as_tensor()


def _draw(boxes: list[Mapping[str, Any]], shape: tuple[int, ...]) -> np.ndarray:
    """A mask for each box, (K, I, J, L)."""
    masks = np.zeros((len(boxes), *shape), np.float32)
    for mask, box in zip(masks, boxes):
        numbers = (*box.get("box", ()), box.get("slice"))
        if "label" not in box or not _is_part(numbers, shape):
            where = f"no part of a scan of {shape} voxels"
            raise ConfigError(f"the box {box} is {where}: correct the datalist")
        x, y, width, height, level = numbers
        mask[x : x + width, y : y + height, level] = 1
    return masks


def _is_part(numbers: tuple[Any, ...], shape: tuple[int, ...]) -> bool:
    """Whether x, y, width, height and level are whole numbers that name voxels of a scan."""
    if len(numbers) != 5 or not all(isinstance(number, int) for number in numbers):
        return False
    x, y, width, height, level = numbers
    inside = x + width <= shape[0] and y + height <= shape[1] and level < shape[2]
    return inside and min(x, y, level) >= 0 and min(width, height) > 0
