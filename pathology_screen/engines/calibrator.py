"""Fit a calibration on healthy slices with the weights that training left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from pathology_screen.calibration import Calibration, fit_calibration
from pathology_screen.engines.random import rank_and_world_size
from pathology_screen.metrics import brain_correlation
from pathology_screen.networks.weights import load_weights
from pathology_screen.predictor import BATCH, Predictor


class Calibrator:
    """Score healthy slices and write `calibration.json` beside the weights.

    Args:
        predictor: with the network that the weights are loaded into.
        dataset: healthy slices, apart from those used for training: `image` (1, H, W) and the
            person, `subject`.
        false_positive_rate: share of healthy pixels that may lie above the pixel threshold (paper:
            5 %).
    """

    def __init__(
        self, predictor: Predictor, dataset: Dataset, false_positive_rate: float = 0.05
    ) -> None:
        self.predictor, self.dataset, self.false_positive_rate = (
            predictor,
            dataset,
            false_positive_rate,
        )

    def run(self) -> Calibration | None:
        """Fit, write and return the calibration (on rank 0; None elsewhere)."""
        if rank_and_world_size()[0] > 0:
            return None
        network = load_weights(self.predictor.network, self.predictor.weights).eval()
        predictor = replace(self.predictor, network=network)
        slices = [self.dataset[i] for i in range(len(self.dataset))]  # type: ignore[arg-type]
        calibration = calibrate(predictor, slices, self.false_positive_rate)
        calibration.save(Path(predictor.weights).with_name("calibration.json"))
        return calibration


def calibrate(
    predictor: Predictor, slices: Sequence[Mapping[str, Any]], false_positive_rate: float = 0.05
) -> Calibration:
    """Score healthy slices and fit a calibration to them.

    Args:
        predictor: what scores them.
        slices: `image` (1, H, W) and the person, `subject`.
        false_positive_rate: share of healthy pixels that may lie above the pixel threshold.

    Raises:
        ConfigError, InputError: see `fit_calibration`.
    """
    images = torch.stack(
        [torch.as_tensor(item["image"]).as_subclass(torch.Tensor) for item in slices]
    )
    parts = [predictor.predict(part) for part in tqdm(images.split(BATCH), desc="calibrating")]
    output, maps, scores = (torch.cat([part[i] for part in parts]) for i in range(3))
    return fit_calibration(
        maps,
        images,
        scores.tolist(),
        [str(item["subject"]) for item in slices],
        predictor.identity,
        false_positive_rate,
        brain_correlation(images, output).tolist() if predictor.reconstructs else [],
    )
