"""From what MONAI's engines leave of one slice to a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from monai.utils import convert_to_numpy

from pathology_screen.screening.judge import Judge, Volumes
from pathology_screen.screening.preparation import Account
from pathology_screen.screening.result import ScreenedSlice, ScreeningResult
from pathology_screen.transforms import pixel_affine


def judge_evaluated(
    judge: Judge, image: Any, output: Mapping[str, Any], level: str | int | float, account: Account
) -> ScreeningResult:
    """Judge one slice after the `postprocessing` of a bundle.

    Args:
        judge: of the weights, preprocessing and scoring in use.
        image: the slice, a MetaTensor (1, size, size).
        output: `pred`, `anomaly_map`, `score`, `anomaly_map_volume` and, of a method that reconstructs,
            `reconstruction_volume`.
        level: as it was asked for.
        account: of the scan.
    """
    painted = output.get("reconstruction_volume")
    screened = ScreenedSlice(
        level=int(image.meta["level"]),
        score=output["score"],
        image=_array(image),
        reconstruction=None if painted is None else _array(output["pred"]),
        anomaly_map=_array(output["anomaly_map"]),
        affine=pixel_affine(image),
    )
    volumes = Volumes(
        _array(output["anomaly_map_volume"]),
        None if painted is None else _array(painted),
        convert_to_numpy(output["anomaly_map_volume"].affine),
    )
    return judge([screened], 0, level, volumes, account.findings, account.source)


def _array(image: Any) -> np.ndarray:
    """(1, ...) -> (...)."""
    return convert_to_numpy(image[0])
