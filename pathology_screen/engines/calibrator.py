"""Fit a calibration on healthy slices with the weights that training left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from monai.data import DataLoader, Dataset
from monai.inferers import Inferer, SimpleInferer
from torch import nn
from tqdm import tqdm

from pathology_screen.anomaly import DistillationMap, Scoring
from pathology_screen.calibration import Calibration, fit_calibration
from pathology_screen.engines.random import rank_and_world_size
from pathology_screen.files import sha256
from pathology_screen.metrics import agreement
from pathology_screen.networks.restoration import Restoration
from pathology_screen.networks.weights import load_weights


def calibration_identity(
    weights: str | Path,
    preprocessing_options: Mapping[str, Any],
    anomaly_map: Scoring,
    level: str | int | float,
    inferer: Inferer | None = None,
) -> dict[str, Any]:
    """Return what a calibration belongs to: the hash of the weights, the preprocessing, the scoring, the level, and how
    the network is applied, unless that is plainly."""
    identity = {
        "weights_sha256": sha256(weights),
        "preprocessing": dict(preprocessing_options),
        "scoring": anomaly_map.identity,
        "level": level,
    }
    return identity | ({"restoration": inferer.identity} if isinstance(inferer, Restoration) else {})


class Calibrator:
    """Score healthy slices and write `calibration.json` beside the weights.

    Args:
        weights: state dict of `network`, loaded by `run`.
        network: image -> prediction, (B, 1, H, W).
        anomaly_map: makes maps and image scores of images and predictions.
        dataset: healthy slices, apart from those used for training: `image` (1, H, W) and the person, `subject`.
        preprocessing_options, level: what made the slices, for the calibration's identity; level "all" for all levels.
        false_positive_rate: share of healthy pixels that may lie above the pixel threshold (paper: 5 %).
        inferer: how the network is applied; None applies it plainly.
    """

    def __init__(
        self,
        weights: str,
        network: nn.Module,
        anomaly_map: Scoring,
        dataset: Dataset,
        preprocessing_options: Mapping[str, Any],
        level: str | int | float,
        false_positive_rate: float = 0.05,
        inferer: Inferer | None = None,
    ) -> None:
        self.weights, self.network, self.anomaly_map = Path(weights), network, anomaly_map
        self.dataset, self.preprocessing_options, self.level = dataset, preprocessing_options, level
        self.false_positive_rate, self.inferer = false_positive_rate, inferer

    def run(self) -> Calibration | None:
        """Fit, write and return the calibration (on rank 0; None elsewhere)."""
        if rank_and_world_size()[0] > 0:
            return None
        network = load_weights(self.network, self.weights).eval()
        identity = calibration_identity(
            self.weights, self.preprocessing_options, self.anomaly_map, self.level, self.inferer
        )
        rate = self.false_positive_rate
        calibration = calibrate(network, self.anomaly_map, self.dataset, identity, rate, self.inferer)
        calibration.save(self.weights.with_name("calibration.json"))
        return calibration


@torch.no_grad()
def calibrate(
    network: nn.Module,
    anomaly_map: Scoring,
    slices: Dataset | Sequence[Mapping[str, Any]],
    identity: Mapping[str, Any],
    false_positive_rate: float = 0.05,
    inferer: Inferer | None = None,
) -> Calibration:
    """Score healthy slices and fit a calibration to them.

    Args:
        network: in evaluation mode.
        anomaly_map: makes maps and image scores of images and predictions.
        slices: `image` (1, H, W) and the person, `subject`.
        identity: from `calibration_identity`.
        false_positive_rate: share of healthy pixels that may lie above the pixel threshold.
        inferer: how the network is applied; None applies it plainly.

    Raises:
        ConfigError, InputError: see `fit_calibration`.
    """
    device, inferer = next(network.parameters()).device, inferer or SimpleInferer()
    reconstructs = not isinstance(anomaly_map, DistillationMap)
    images, maps, scores, agreements = [], [], [], []
    for batch in tqdm(DataLoader(cast(Dataset, slices), batch_size=8, num_workers=0), desc="calibrating"):
        image = batch["image"].to(device)
        prediction = inferer(image, network)
        map_ = anomaly_map(image, prediction)
        images.append(image.cpu())
        maps.append(map_.cpu())
        scores += anomaly_map.score(image, map_).tolist()
        agreements += agreement(image, prediction).tolist() if reconstructs else []
    subjects = [item["subject"] for item in cast(Iterable, slices)]
    return fit_calibration(
        torch.cat(maps), torch.cat(images), scores, subjects, identity, false_positive_rate, agreements
    )
