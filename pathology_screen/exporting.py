"""Write a method, its scoring and its thresholds as one file that runs without this package."""

import io
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from pathology_screen.anomaly import AnomalyMap, DistillationMap
from pathology_screen.anomaly.maps import gaussian_blur
from pathology_screen.anomaly.perceptual import PerceptualDistance
from pathology_screen.errors import ConfigError
from pathology_screen.files import replacing
from pathology_screen.predictor import Predictor
from pathology_screen.screening.screener import Screener

Format = Literal["onnx", "torchscript"]
METADATA = "metadata.json"
"""Name of the metadata among the extra files of a TorchScript file."""


class ScreeningGraph(nn.Module):
    """What `Predictor.predict` computes, in tensor operations alone; values are not checked.

    Takes slices (N, 1, H, W) in [0, 1], float32; gives what `outputs` names: `reconstruction` and
    `anomaly_map`, the same shape, and `score` (N,). A method that does not reconstruct gives no
    `reconstruction`.

    Args:
        predictor: on the CPU.

    Raises:
        ConfigError: if the scoring equalises, or needs gradients.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        scoring = cast(Any, predictor.scoring)
        if isinstance(scoring, AnomalyMap):
            if scoring.equalize:
                no = "this scoring equalises slices, which is no tensor operation"
                raise ConfigError(f"{no}: a scoring with equalize=false can be exported")
            metric = scoring.perceptual
            if isinstance(metric, PerceptualDistance):
                metric = metric.metric  # takes any number of slices at once
            kept: Any = {"sigma": scoring.sigma, "score": scoring.kind_of_score}
            scoring = AnomalyMap("none" if metric is None else metric, equalize=False, **kept)
        elif not isinstance(scoring, DistillationMap) or scoring.kind != "discrepancy":
            raise ConfigError('an exported map of MKD is of the kind "discrepancy"')
        self.network, self.scoring, self.inferer = predictor.network, scoring, predictor.inferer
        painted = ("reconstruction",) if predictor.reconstructs else ()
        self.outputs = (*painted, "anomaly_map", "score")

    def forward(self, slices: Tensor) -> tuple[Tensor, ...]:
        output = self.inferer(slices, self.network)
        if isinstance(self.scoring, AnomalyMap):
            maps = self.scoring.compare(slices, output)
            return output, maps, self.scoring.score(slices, maps)
        maps = gaussian_blur(output, self.scoring.sigma) if self.scoring.sigma else output
        return maps, self.scoring.network.score(slices)


def export(screener: Screener, path: str | Path, kind: Format = "onnx") -> dict[str, Any]:
    """Write the graph of a screener on the CPU, with its thresholds, whole or not at all.

    Returns:
        The metadata that the file holds, as JSON values: `image_threshold`, its
        `false_positive_rate`, `pixel_threshold`, and the provenance of a result (`method`,
        `calibration_id`, `identity`, `healthy`, `versions`). In ONNX each is a property of its own,
        JSON text; in TorchScript all are in the extra file `METADATA`.

    Raises:
        ConfigError: see `ScreeningGraph`; also if the format is unknown, or the packages of ONNX
            are not installed.
    """
    if kind not in get_args(Format):
        raise ConfigError(f"the format is one of {', '.join(get_args(Format))}, not {kind!r}")
    predictor, judge = screener.predictor, screener.judge
    graph = ScreeningGraph(predictor).eval()
    metadata = {
        "image_threshold": judge.image_threshold,
        "false_positive_rate": judge.rate,
        "pixel_threshold": judge.calibration.pixel_threshold,
        **judge.provenance,
    }
    side = predictor.slice_options["size"]
    example = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    content = (_onnx if kind == "onnx" else _torchscript)(graph, example, metadata)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return metadata


@torch.no_grad()
def _onnx(graph: ScreeningGraph, example: Tensor, metadata: dict[str, Any]) -> bytes:
    if absent := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise ConfigError(f"ONNX needs {', '.join(absent)}: pip install 'pathology-screen[export]'")
    from onnx.helper import set_model_props

    program: Any = torch.onnx.export(
        graph,
        (example,),
        input_names=["slices"],
        output_names=graph.outputs,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    set_model_props(model, {name: json.dumps(it) for name, it in metadata.items()})
    return model.SerializeToString()


@torch.no_grad()
def _torchscript(graph: ScreeningGraph, example: Tensor, metadata: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sides become constants, as they should
        traced = torch.jit.trace(graph, example)
        torch.jit.save(traced, file, _extra_files={METADATA: json.dumps(metadata)})
    return file.getvalue()
