"""A bundle as MONAI Label's stock app runs it: the path of a study in, a segmentation out."""

from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from pathology_screen.errors import InputError
from pathology_screen.outputs.record import make_record
from pathology_screen.predictor import Predictor
from pathology_screen.result import ScanContext
from pathology_screen.screening.evaluated import judge_evaluated
from pathology_screen.screening.judge import Judge
from pathology_screen.screening.screener import prepare


class AcceptedSliced(Transform):
    """Replace the path of a scan by its slice, past the acceptance gate, and add its `context`.

    A refusal is an InputError, as such or as the cause of a RuntimeError of MONAI's.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        context = ScanContext()
        image = prepare(self.predictor, data["image"], context)
        return {**data, "image": image, "context": context}


class Segmented(Transform):
    """Judge what `postprocessing` made of the slice: `pred` becomes the regions, (1, I, J, K)
    uint8, 0 or 1, on the voxels of the scan, and `result` the record (see `make_record`)."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        result = judge_evaluated(self.judge, data["image"], data, data["context"])
        if result.regions_volume is None or result.affine is None:
            raise InputError(result.code or "unexpected_error")
        regions = torch.from_numpy(result.regions_volume > 0)[None].to(torch.uint8)
        pred = MetaTensor(regions, affine=torch.as_tensor(result.affine))
        return {**data, "pred": pred, "result": make_record(result)}
