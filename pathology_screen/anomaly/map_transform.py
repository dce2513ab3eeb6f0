"""The anomaly map as a MONAI transform, for the postprocessing of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from pathology_screen.anomaly.maps import AnomalyMap, image_score


class AnomalyMapd(MapTransform):
    """Add the anomaly map and the image score of one image to a dictionary.

    Map and reconstruction take over the image's affine, meta data and record of applied transforms, so that MONAI's
    `Invertd(keys, transform=preprocessing, orig_keys=image_key)` takes both back to the scan.

    Args:
        image_key: image (1, H, W), a tensor or MetaTensor.
        reconstruction_key: its pseudo-healthy reconstruction (1, H, W).
        map_key: where the map (1, H, W), float32, is put.
        score_key: where the image score, a float, is put.
        anomaly_map: called with two batches (B, 1, H, W), gives maps (B, 1, H, W); `AnomalyMap()` by default.
    """

    def __init__(
        self,
        image_key: Hashable = "image",
        reconstruction_key: Hashable = "pred",
        map_key: Hashable = "anomaly_map",
        score_key: Hashable = "score",
        anomaly_map: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__((image_key, reconstruction_key))
        self.image_key, self.reconstruction_key = image_key, reconstruction_key
        self.map_key, self.score_key = map_key, score_key
        self.anomaly_map = AnomalyMap() if anomaly_map is None else anomaly_map

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image, reconstruction = data[self.image_key], data[self.reconstruction_key]
        anomaly_map = self.anomaly_map(image[None], reconstruction[None])  # (1, 1, H, W)
        return dict(data) | {
            self.reconstruction_key: _in_the_space_of(image, reconstruction),
            self.map_key: _in_the_space_of(image, anomaly_map[0]),
            self.score_key: image_score(anomaly_map).item(),
        }


def _in_the_space_of(image: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The values, float32, with the meta data of the image in place of their own."""
    plain = convert_to_tensor(values, track_meta=False)
    return convert_to_dst_type(plain, image, dtype=torch.float32)[0]
