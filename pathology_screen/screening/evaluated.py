"""A batch of scans as MONAI's evaluator screens it, with the configuration of a bundle."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import convert_to_tensor
from torch.utils.data import IterableDataset, get_worker_info

from pathology_screen.errors import ConfigError, as_refusal
from pathology_screen.predictor import Prediction
from pathology_screen.result import ScanContext, ScreeningResult
from pathology_screen.screening.batch import Batch, Item
from pathology_screen.screening.judge import Judge
from pathology_screen.screening.screener import prepare


class EvaluatedBatch(IterableDataset):
    """Dataset and handler of an evaluator: it gives the slice of each scan of a batch that the
    reader and the acceptance gate accept, and judges and writes what the evaluator makes of it.

    Raises:
        ConfigError: on iteration outside `run`, or in a worker process, which could not report its
            refusals: load with num_workers=0.
    """

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch
        self.pending: Iterable[Item] | None = None
        self.given: dict[str, tuple[Item, ScanContext, float]] = {}

    def run(self, evaluator: Engine) -> None:
        """Screen the batch, and end the program where its exit status is not 0."""
        with self.batch.pending() as self.pending:
            evaluator.run()
        if status := self.batch.summarize():
            raise SystemExit(status)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if get_worker_info() is not None:
            raise ConfigError("scans are screened in one process: set num_workers to 0")
        if self.pending is None:
            raise ConfigError("start the evaluator by `run` of its dataset")
        judge = self.batch.judge
        for item in self.pending:
            context = ScanContext()
            try:
                options = self.batch.options(item)
                image = prepare(judge.predictor, item.scan.source, context, **options)
            except Exception as error:
                self.batch.write(item, judge.refuse(as_refusal(error), context))
            else:
                self.given[item.name] = item, context, time.perf_counter()
                yield {"name": item.name, "image": image}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Judge and write what the evaluator made of its slices."""
        state: Any = engine.state
        for data, output in zip(state.batch, state.output):
            item, context, since = self.given.pop(data["name"])
            context.seconds["screening"] = time.perf_counter() - since
            result = judge_evaluated(self.batch.judge, data["image"], output, context)
            self.batch.write(item, result)


def judge_evaluated(
    judge: Judge, image: Any, output: Mapping[str, Any], context: ScanContext
) -> ScreeningResult:
    """Judge one slice, a MetaTensor (1, size, size), after the `postprocessing` of a bundle, which
    gave `output`: its `pred`, `anomaly_map` and `score`."""
    painted, anomaly_map = (
        convert_to_tensor(output[name], track_meta=False)[None].cpu()
        for name in ("pred", "anomaly_map")
    )
    prediction = Prediction(painted, anomaly_map, torch.tensor([output["score"]]))
    return judge(image, prediction, context)
