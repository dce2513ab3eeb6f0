"""From any scan to an outcome: read, accept or refuse, paint the pseudo-healthy brain, compare,
judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pathology_screen.calibration import Calibration, calibration_beside
from pathology_screen.errors import find_refusal
from pathology_screen.io import Scan, read_scan
from pathology_screen.predictor import Predictor
from pathology_screen.screening.context import ScanContext, prepare
from pathology_screen.screening.judge import Judge, measure_slice
from pathology_screen.screening.result import ScreeningResult


class Screener:
    """Screen scans with one method: `Screener.from_bundle("ra")(path)`.

    Threads may share a screener: nothing in it changes after it is made.

    Args:
        predictor: the method, ready to look at slices.
        calibration: of it.
        rate: of false positives among healthy people, that the image threshold is for.

    Raises:
        ConfigError: if the calibration has too few people for the rate.
    """

    def __init__(self, predictor: Predictor, calibration: Calibration, rate: float = 0.05) -> None:
        calibration.image_threshold(
            rate
        )  # or the people are too few: better told before the first scan than of each
        self.predictor, self.judge = predictor, Judge(predictor, calibration, rate)

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
        """Load a bundle: its network from the registry, its weights by hash; no configuration is
        evaluated.

        Args:
            bundle: name or folder.
            weights: in place of the bundle's own `models/model.pt`.
            calibration: in place of the `calibration.json` beside the weights, such as one fitted
                on your scanner.
            profile: "compact" or "paper", which the weights belong to.
            rate: of false positives among healthy people, that the image threshold is for.
            device: of the network.

        Raises:
            ArtifactError: if weights or calibration are missing, damaged or altered, or do not
                belong together.
            ConfigError: if there is no such bundle or profile, or the calibration has too few
                people for the rate.
        """
        predictor = Predictor.load(bundle, weights, profile, device)
        return cls(predictor, calibration_beside(predictor, calibration), rate)

    def __call__(
        self,
        scan: str | Path | Sequence[str | Path] | Scan,
        *,
        plane_mm: float | None = None,
        series_uid: str | None = None,
        axial_slice: bool = False,
    ) -> ScreeningResult:
        """Screen one scan.

        Args:
            scan: see `io.read_scan`; or a scan that was read.
            plane_mm: z of another plane of MNI152 space, which is mapped and not judged.
            series_uid, axial_slice: see `io.read_scan`.

        Returns:
            The result; "not_assessable" for a scan that the reader or the acceptance gate refuses,
            or a plane that the calibration does not cover (code "not_calibrated").

        Raises:
            ArtifactError: if the weights turn out to be broken.
        """
        context = ScanContext()
        item: dict[str, Any] = {} if plane_mm is None else {"z_mm": plane_mm}
        try:
            with context.timed("reading"):
                if not isinstance(scan, Scan):
                    scan = read_scan(scan, series_uid=series_uid, axial_slice=axial_slice)
            with context.timed("preparation"):
                image = prepare(self.predictor, {**item, "image": scan}, context)
            with context.timed("screening"):
                prediction = self.predictor.predict(image[None])
                result = self.judge(measure_slice(self.predictor, image, prediction), context)
        except Exception as error:  # MONAI wraps what a transform raises in a RuntimeError
            refusal = find_refusal(error)
            if refusal is None:
                raise
            result = self.judge.refuse(refusal, context)
        return replace(result, seconds=context.seconds)
