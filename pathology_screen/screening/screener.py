"""From any scan to an outcome: read, accept or refuse, paint the pseudo-healthy brain, compare, judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from pathology_screen.calibration import Calibration
from pathology_screen.errors import ConfigError, find_refusal
from pathology_screen.io import Scan, read_scan
from pathology_screen.registry import METHODS
from pathology_screen.screening.judge import Judge, Volumes
from pathology_screen.screening.loading import Loaded, load_bundle
from pathology_screen.screening.preparation import Account, Preparation, Slices
from pathology_screen.screening.result import ScreenedSlice, ScreeningResult
from pathology_screen.screening.scans import calibration_beside
from pathology_screen.transforms import eval_transforms, pixel_affine, scan_image, slices_to_volume

BATCH = 8


class Screener:
    """Screen scans with one network: `Screener.from_bundle("ra")(path)`.

    Threads may share a screener: nothing in it changes after it is made.

    Args:
        loaded: the network with its weights, scoring and preprocessing.
        calibration: of these.
        rate: of false positives among healthy people, that the image threshold is for.

    Raises:
        ConfigError: if the calibration has too few people for the rate.
    """

    def __init__(self, loaded: Loaded, calibration: Calibration, rate: float = 0.05) -> None:
        self.network, self.inferer = loaded.network, loaded.inferer
        self.scoring, self.level = loaded.scoring, loaded.level
        self.reconstructs = METHODS[loaded.method].reconstructs
        calibration.image_threshold(rate)  # or the people are too few: better told before the first scan than of each
        self.judge = Judge(loaded.method, calibration, rate)
        self.transforms = eval_transforms(level=loaded.level, **loaded.preprocessing_options)
        self.prepare = Preparation(self.transforms)

    @classmethod
    def from_bundle(
        cls,
        bundle: str | Path = "ra",
        *,
        weights: str | Path | None = None,
        calibration: str | Path | None = None,
        profile: str = "compact",
        rate: float = 0.05,
        device: str | torch.device = "cpu",
    ) -> Screener:
        """Load a bundle: its network from the registry, its weights by hash; no configuration is evaluated.

        Args:
            bundle: name or folder.
            weights: in place of the bundle's own `models/model.pt`.
            calibration: in place of the `calibration.json` beside the weights, such as one fitted on your scanner.
            profile: "compact" or "paper", which the weights belong to.
            rate: of false positives among healthy people, that the image threshold is for.
            device: of the network.

        Raises:
            ArtifactError: if weights or calibration are missing, damaged or altered, or do not belong together.
            ConfigError: if there is no such bundle or profile, or the calibration has too few people for the rate.
        """
        loaded = load_bundle(bundle, weights, profile, device)
        belongs = loaded.weights, loaded.preprocessing_options, loaded.scoring
        fitted = calibration_beside(*belongs, calibration, loaded.inferer)
        return cls(loaded, fitted, rate)

    def __call__(
        self,
        scan: str | Path | Sequence[str | Path] | Scan,
        *,
        slices: Slices = "middle",
        series_uid: str | None = None,
        axial_slice: bool = False,
    ) -> ScreeningResult:
        """Screen one scan.

        Args:
            scan: see `io.read_scan`; or a scan that was read.
            slices: "middle", "all", or a level.
            series_uid, axial_slice: see `io.read_scan`.

        Returns:
            The result; "not_assessable" for a scan that the reader or the acceptance gate refuses, or a slice at a
            level that the calibration does not cover (code "not_calibrated").

        Raises:
            ConfigError: for an unknown level.
            ArtifactError: if the weights turn out to be broken.
        """
        check_slices(slices)
        account = Account()
        try:
            with account.timed("reading"):
                if not isinstance(scan, Scan):
                    scan = read_scan(scan, series_uid=series_uid, axial_slice=axial_slice)
            with account.timed("preparation"):
                prepared = self.prepare(scan_image(scan), slices, account)
            with account.timed("screening"):
                result = self._screen(prepared, slices, account)
        except Exception as error:  # MONAI wraps what a transform raises in a RuntimeError
            refusal = find_refusal(error)
            if refusal is None:
                raise
            result = self.judge.refuse(refusal, account.findings, account.source)
        return replace(result, seconds=account.seconds)

    def _screen(self, prepared: Sequence[Mapping[str, Any]], slices: Slices, account: Account) -> ScreeningResult:
        images: list[MetaTensor] = [item["image"] for item in prepared]
        predictions, maps, scores = self._look(torch.stack([image.as_tensor() for image in images]))
        screened = [
            ScreenedSlice(
                level=int(image.meta["level"]),
                score=score,
                image=image[0].numpy(),
                reconstruction=prediction[0].numpy() if self.reconstructs else None,
                anomaly_map=map_[0].numpy(),
                affine=pixel_affine(image),
            )
            for image, prediction, map_, score in zip(images, predictions, maps, scores)
        ]
        map_volume = slices_to_volume(self.transforms, images, list(maps))
        painted = slices_to_volume(self.transforms, images, list(predictions))[0].numpy() if self.reconstructs else None
        volumes = Volumes(map_volume[0].numpy(), painted, np.asarray(map_volume.affine))
        level = self.level if slices in ("middle", "all") else slices
        own = next(i for i, item in enumerate(prepared) if item["own"])
        return self.judge(screened, own, level, volumes, account.findings, account.source)

    @torch.no_grad()
    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, list[float]]:
        """Predictions and maps (N, 1, size, size) on the CPU, and scores, of slices (N, 1, size, size)."""
        device = next(self.network.parameters()).device
        predictions, maps, scores = [], [], []
        for part in images.split(BATCH):
            batch = part.to(device)
            prediction = self.inferer(batch, self.network)
            map_ = self.scoring(batch, prediction)
            predictions.append(prediction.cpu())
            maps.append(map_.cpu())
            scores += self.scoring.score(batch, map_).tolist()
        return torch.cat(predictions), torch.cat(maps), scores


def check_slices(slices: Slices) -> None:
    """Raise ConfigError unless `slices` is "middle", "all", a whole number or a fraction between 0 and 1."""
    whole = isinstance(slices, int) and not isinstance(slices, bool)
    if not (slices in ("middle", "all") or whole or (isinstance(slices, float) and 0 < slices < 1)):
        raise ConfigError(f'slices are "middle", "all", a whole number or a fraction of the brain, not {slices!r}')
