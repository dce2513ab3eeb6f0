"""Fit a calibration on slices of healthy people who were not trained on."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from pathology_screen.calibration.store import Calibration, as_json, fewest_people, pixel_threshold
from pathology_screen.engines import rank_and_world_size
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.metrics import brain_correlation
from pathology_screen.networks.weights import load_weights
from pathology_screen.predictor import BATCH, Predictor


class Calibrator:
    """Score healthy slices with the weights that training left; write `calibration.json`.

    Made before training, it warns at once where the people are too few for `subject_fpr`; maps,
    weights and the calibration come all the same.

    Args:
        predictor: with the network that the weights are loaded into.
        dataset: healthy slices that nothing was trained on: `image` (1, H, W) and `subject`.
        pixel_fpr: share of healthy pixels that may lie above the pixel threshold (paper: 5 %).
        subject_fpr: rate of false positives among healthy people that screening will ask for.
    """

    def __init__(
        self,
        predictor: Predictor,
        dataset: Dataset,
        pixel_fpr: float = 0.05,
        subject_fpr: float = 0.05,
    ) -> None:
        self.predictor, self.pixel_fpr = predictor, pixel_fpr
        self.slices = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
        people = len({str(item["subject"]) for item in self.slices})
        fewest = fewest_people(subject_fpr)
        if people < fewest and rank_and_world_size()[0] == 0:
            warnings.warn(
                f"{people} healthy people to calibrate on allow a false positive rate of "
                f"{1 / (people + 1):.3g} at best, not {subject_fpr:g}, which takes {fewest}: "
                "weights and maps come all the same, but no outcome at such a rate",
                stacklevel=2,
            )

    def run(self) -> Calibration | None:
        """Fit, write and return the calibration (on rank 0; None elsewhere)."""
        if rank_and_world_size()[0] > 0:
            return None
        network = load_weights(self.predictor.network, self.predictor.weights).eval()
        predictor = replace(self.predictor, network=network)
        calibration = calibrate(predictor, self.slices, self.pixel_fpr)
        calibration.save(self.predictor.weights.with_name("calibration.json"))
        return calibration


def calibrate(
    predictor: Predictor, slices: Sequence[Mapping[str, Any]], pixel_fpr: float = 0.05
) -> Calibration:
    """Score healthy slices, `image` (1, H, W) and the person, `subject`, and fit a calibration to
    them; `pixel_fpr` and errors are those of `fit_calibration`."""
    plain = [torch.as_tensor(item["image"]).as_subclass(torch.Tensor) for item in slices]
    images = torch.stack(plain)
    parts = [predictor.predict(part) for part in tqdm(images.split(BATCH), desc="calibrating")]
    output, maps, scores = (torch.cat([part[i] for part in parts]) for i in range(3))
    return fit_calibration(
        maps,
        images,
        scores.tolist(),
        [str(item["subject"]) for item in slices],
        predictor.identity,
        pixel_fpr,
        brain_correlation(images, output).tolist() if predictor.reconstructs else [],
    )


def fit_calibration(
    maps: np.ndarray | torch.Tensor,
    images: np.ndarray | torch.Tensor,
    scores: Sequence[float],
    subjects: Sequence[str],
    identity: Mapping[str, Any],
    pixel_fpr: float = 0.05,
    agreements: Sequence[float] = (),
) -> Calibration:
    """Fit a calibration to what a method made of healthy slices.

    The pixel threshold is the smallest number that at most the given share of all pixels of all
    slices exceeds, background included as in the paper (section 4.2), found exactly.

    Args:
        maps: anomaly maps, arrays or CPU tensors of shape (N, 1, H, W).
        images: the images, the same shape; above 0 is brain.
        scores: image score of each slice, N numbers.
        subjects: who each slice comes from, N names; only their number is kept.
        pixel_fpr: share of pixels, between 0 and 1.
        identity, agreements: see `Calibration`; N agreements, or none.

    Raises:
        ConfigError: if there are no slices, the lengths or shapes differ, or the rate is not
            between 0 and 1, or is higher than the share of pixels above 0.
        InputError: "not_finite", for maps or scores; "no_tissue", if every image is empty.
    """
    maps, images = np.asarray(maps), np.asarray(images)
    n = len(maps)
    lengths_agree = len(scores) == len(subjects) == n and len(agreements) in (0, n)
    if maps.size == 0 or maps.shape != images.shape or not lengths_agree:
        raise ConfigError(
            f"maps {maps.shape}, images {images.shape}, {len(scores)} scores and "
            f"{len(subjects)} subjects do not go together"
        )
    brain = images > 0
    if not brain.any():
        raise InputError("no_tissue", "in the images of the calibration set")
    if not 0 < pixel_fpr < 1:
        raise ConfigError(f"the false positive rate must lie between 0 and 1, not {pixel_fpr}")
    if not all(np.isfinite(values).all() for values in (maps, scores, agreements)):
        raise InputError("not_finite", "the anomaly maps or scores of the calibration set")
    threshold = pixel_threshold(maps, pixel_fpr)
    if threshold <= 0:
        few = f"no more than {pixel_fpr:g} of all pixels lie above 0"
        raise ConfigError(f"{few}: ask for a lower rate")
    exceeds = maps > threshold
    number = {subject: i for i, subject in enumerate(dict.fromkeys(subjects))}
    return Calibration(
        threshold,
        pixel_fpr,
        {"all_pixels": float(exceeds.mean()), "brain_pixels": float(exceeds[brain].mean())},
        scores=tuple(map(float, scores)),
        subjects=tuple(number[subject] for subject in subjects),
        identity=as_json(identity),
        agreements=tuple(map(float, agreements)),
    )
