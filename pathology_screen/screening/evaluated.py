"""From what MONAI's engines leave of one slice to a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.utils import convert_to_tensor

from pathology_screen.predictor import Prediction
from pathology_screen.screening.context import ScanContext
from pathology_screen.screening.judge import Judge, measure_slice
from pathology_screen.screening.result import ScreeningResult


def judge_evaluated(
    judge: Judge, image: Any, output: Mapping[str, Any], context: ScanContext
) -> ScreeningResult:
    """Judge one slice after the `postprocessing` of a bundle.

    Args:
        judge: of the weights, preprocessing and scoring in use.
        image: the slice, a MetaTensor (1, size, size).
        output: `pred`, `anomaly_map` and `score` of the slice.
        context: of the scan.
    """
    painted, anomaly_map = (
        convert_to_tensor(output[name], track_meta=False)[None].cpu()
        for name in ("pred", "anomaly_map")
    )
    prediction = Prediction(painted, anomaly_map, torch.tensor([output["score"]]))
    return judge(measure_slice(judge.predictor, image, prediction), context)
