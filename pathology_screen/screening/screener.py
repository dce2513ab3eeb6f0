"""From any scan to an outcome: read, accept or refuse, paint, compare, judge."""

from pathlib import Path
from typing import Unpack

import torch

from pathology_screen.calibration import Calibration, calibration_beside
from pathology_screen.errors import find_refusal
from pathology_screen.predictor import Predictor
from pathology_screen.result import ScanContext, ScreeningResult
from pathology_screen.screening.context import ScanOptions, ScanSource, prepare, scan_item
from pathology_screen.screening.judge import Judge


class Screener:
    """Screen scans with one method: `Screener.from_bundle("ra")(path)`.

    Threads may share a screener: nothing in it changes after it is made.

    Args:
        predictor: the method, ready to look at slices.
        calibration: its calibration.
        rate: share of false positives among healthy people that the image threshold allows.

    Raises:
        ConfigError: if the calibration has too few people for the rate.
    """

    def __init__(self, predictor: Predictor, calibration: Calibration, rate: float = 0.05) -> None:
        calibration.image_threshold(rate)  # or the people are too few, told before the first scan
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
    ) -> "Screener":
        """Load a bundle: network by the registry, weights by hash; nothing is evaluated.

        Args:
            bundle, weights, profile, device: see `Predictor.load`.
            calibration: file in place of the `calibration.json` beside the weights.
            rate: see `Screener`.

        Raises:
            ArtifactError: if weights or calibration are missing, damaged, or do not match.
            ConfigError: if there is no such bundle or profile, or the calibration has too few
                people for the rate.
        """
        predictor = Predictor.load(bundle, weights, profile, device)
        return cls(predictor, calibration_beside(predictor, calibration), rate)

    def __call__(self, scan: ScanSource, **options: Unpack[ScanOptions]) -> ScreeningResult:
        """Screen one scan.

        Returns:
            The result; "not_assessable" for a scan that the reader or the acceptance gate refuses,
            or a plane that the calibration does not cover (code "not_calibrated").

        Raises:
            ArtifactError: if the weights turn out to be broken.
        """
        context = ScanContext()
        try:
            image = prepare(self.predictor, scan_item(scan, **options), context)
            with context.timed("screening"):
                return self.judge(image, self.predictor.predict(image[None]), context)
        except Exception as error:  # MONAI wraps what a transform raises in a RuntimeError
            refusal = find_refusal(error)
            if refusal is None:
                raise
            return self.judge.refuse(refusal, context)
