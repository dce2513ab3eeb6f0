"""What every way of scoring offers, and scoring as a MONAI transform for postprocessing."""

from collections.abc import Hashable, Mapping
from typing import Any, Protocol

import torch
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from pathology_screen.anomaly.maps import AnomalyMap


class Scoring(Protocol):
    """From an image and what a network makes of it to an anomaly map and an image score
    (`AnomalyMap`, `DistillationMap`)."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the values depend on, ready for JSON; part of the identity of a calibration."""

    def __call__(self, image: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """Anomaly maps (B, 1, H, W), at least 0, of images and the network's output for them, the
        same shape."""

    def score(self, image: torch.Tensor, anomaly_map: torch.Tensor) -> torch.Tensor:
        """Image scores (B,) of images (B, 1, H, W) and their anomaly maps."""


class AnomalyMapd(MapTransform):
    """Add the anomaly map and the image score of one image to a dictionary: to `image` and `pred`,
    what the network made of it, both (1, H, W), `anomaly_map`, (1, H, W), float32, and `score`.

    Map and prediction take over the image's affine, meta data and record of applied transforms, so
    that MONAI's `Invertd(keys, transform=preprocessing, orig_keys="image")` takes both back to the
    scan.

    Args:
        anomaly_map: makes the map and the score; `AnomalyMap()` by default.

    >>> image = torch.full((1, 32, 32), 0.5)
    >>> found = AnomalyMapd(AnomalyMap("none", equalize=False))({"image": image, "pred": image / 2})
    >>> found["anomaly_map"].shape, found["score"]
    (torch.Size([1, 32, 32]), 0.25)
    """

    def __init__(self, anomaly_map: Scoring | None = None) -> None:
        super().__init__(("image", "pred"))
        self.anomaly_map = AnomalyMap() if anomaly_map is None else anomaly_map

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image, prediction = data["image"], data["pred"]
        anomaly_map = self.anomaly_map(image[None], prediction[None])  # (1, 1, H, W)
        return dict(data) | {
            "pred": _in_the_space_of(image, prediction),
            "anomaly_map": _in_the_space_of(image, anomaly_map[0]),
            "score": self.anomaly_map.score(image[None], anomaly_map).item(),
        }


def _in_the_space_of(image: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the values, float32, with the meta data of the image in place of their own."""
    plain = convert_to_tensor(values, track_meta=False)
    return convert_to_dst_type(plain, image, dtype=torch.float32)[0]
