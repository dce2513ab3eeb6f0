"""Keep the best weights, and all that a killed training run needs to go on."""

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pathology_screen.engines.training_batch import SeededBatches, rank_and_world_size
from pathology_screen.engines.validation import AveragedWeights
from pathology_screen.errors import ConfigError, ScreeningError
from pathology_screen.files import replacing

logger = logging.getLogger(__name__)


class TrainingDiverged(ScreeningError):
    """A loss or a weight is NaN or infinite; the last good checkpoint is kept."""


def training_values(output: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalars among what an iteration gave, its losses, by name."""
    return {
        str(name): torch.as_tensor(value).detach().item()
        for name, value in output.items()
        if isinstance(value, float) or (isinstance(value, torch.Tensor) and value.ndim == 0)
    }


@dataclass(eq=False)
class TrainingState:
    """Handler of a MONAI trainer: resume, checkpoint, log, keep the best weights, and stop early.

    It writes into `output_dir`, each file whole or not at all:

    - `model.pt`: state dict of the network with averaged weights, on the CPU, at the best
      validation so far, or else at the end; `warm_up/model.pt`: the same at the end of the warm-up;
    - `resume.pt`: network, averaged weights, optimizers, counters and history, every `interval`
      seconds and at the end of each epoch;
    - `log.csv`: one row an epoch with the mean of each training value and the validation metrics;
      row 0 is the validation of the weights that training starts from.

    All randomness of training is a function of seed and iteration, so these are the whole state. A
    run goes on from `resume.pt` where there is one, at the learning rate that is configured now, or
    where the schedule had brought it. Attach it after the ValidationHandler and the averaged
    weights. The last epoch is validated whatever the handler's interval.

    Raises:
        ConfigError: if `resume.pt` belongs to another run.
        TrainingDiverged: if a loss or weight is not finite; `resume.pt` holds the last good.
    """

    output_dir: str
    network: nn.Module
    optimizers: Mapping[str, Optimizer]
    batches: SeededBatches  # behind the training loader, moved on when a run resumes
    averaged: AveragedWeights  # of the network, which are validated and kept
    evaluator: Any  # its key metric decides which weights are best
    schedule: LRScheduler | None = None
    patience: int | None = None  # stop after so many epochs without a better key metric
    warm_up: int = 0  # epochs whose weights do not compete for the best; those at the start do
    interval: float = 120.0
    identity: Mapping[str, Any] = field(default_factory=dict)  # what else a resumed run agrees in

    def __post_init__(self) -> None:
        self.folder, batches = Path(self.output_dir), self.batches
        self.run: dict[str, Any] = {
            "samples": batches.length,
            "batch": batches.batch_size * batches.world_size,
            "seed": batches.seed,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            **{name: json.dumps(value, sort_keys=True) for name, value in self.identity.items()},
        }
        self.history: list[dict[str, float]] = []
        self.sums: dict[str, tuple[float, int]] = {}  # of each training value in this epoch
        self.saved_at = time.monotonic()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def _started(self, engine: Engine) -> None:
        """Take up `resume.pt`, or validate what training starts from, which competes as epoch 0."""
        path = self.folder / "resume.pt"
        if not path.exists():
            self.evaluator.run()
            self.evaluator.state.epoch = 0  # it counts from 1, and epoch 1 may not be validated
            self.history.append({"epoch": 0, "iteration": 0} | self._validation())
            self._keep_first()
            self._write_model()
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["run"] != self.run:
            differing = [name for name in self.run if state["run"].get(name) != self.run[name]]
            raise ConfigError(
                f"{path.name} belongs to another run: {', '.join(differing)} differ; "
                "remove it or name another output_dir"
            )
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        for name, optimizer in self.optimizers.items():
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            if self.schedule is None:
                for group, rate in zip(optimizer.param_groups, rates):
                    group["lr"] = rate
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = state["best"]
        self.history, self.sums = state["history"], state["sums"]
        engine.state.iteration = self.batches.iteration = state["iteration"]
        engine.state.epoch = state["iteration"] // len(self.batches)
        logger.info("resumed after %d iterations", state["iteration"])
        self._stop_if_patience_is_over(engine)

    def _keep_first(self) -> None:
        """Let the weights that training started from be the best ones."""
        state = self.evaluator.state
        state.best_metric = self.history[0][f"val_{state.key_metric_name}"]
        state.best_metric_epoch = 0

    def _validation(self) -> dict[str, float]:
        """The metrics of the last validation, named as in the log."""
        return {f"val_{name}": float(value) for name, value in self.evaluator.state.metrics.items()}

    def _iteration_completed(self, engine: Engine) -> None:
        state: Any = engine.state
        for name, value in training_values(state.output).items():
            if not math.isfinite(value):
                raise TrainingDiverged(f"{name} is {value}; lower the learning rate, then resume")
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)
        ends_epoch = state.iteration % len(self.batches) == 0  # then validation comes first
        if not ends_epoch and time.monotonic() - self.saved_at > self.interval:
            self._save(engine)

    def _epoch_completed(self, engine: Engine) -> None:
        epoch, evaluator = engine.state.epoch, self.evaluator
        row: dict[str, float] = {"epoch": epoch, "iteration": engine.state.iteration}
        row |= {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        if epoch == engine.state.max_epochs and evaluator.state.epoch != epoch:
            evaluator.run(epoch)
        if evaluator.state.epoch == epoch:  # validated at this epoch
            row |= self._validation()
        if epoch <= self.warm_up:
            self._keep_first()
        if epoch == self.warm_up:
            self._write_model("warm_up/model.pt")
        self.history.append(row)
        if evaluator.state.best_metric_epoch == epoch:
            self._write_model()
        if rank_and_world_size()[0] == 0:
            with replacing(self.folder / "log.csv") as path:
                pd.DataFrame(self.history).to_csv(path, index=False)
        self._save(engine)
        self._stop_if_patience_is_over(engine)

    def _completed(self, engine: Engine) -> None:
        if not (self.folder / "model.pt").exists():  # it was lost, and nothing better came
            self._write_model()

    def _stop_if_patience_is_over(self, engine: Engine) -> None:
        waited = engine.state.epoch - max(self.evaluator.state.best_metric_epoch, self.warm_up)
        if self.patience and waited >= self.patience:
            logger.info("no better validation for %d epochs: training stops", waited)
            engine.terminate()

    def _write_model(self, name: str = "model.pt") -> None:
        """Write the averaged weights: contiguous tensors on the CPU, which load on any machine."""
        state = self.averaged.module.state_dict()
        self._write(name, {name: value.cpu().contiguous() for name, value in state.items()})

    def _save(self, engine: Engine) -> None:
        validated = self.evaluator.state
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        state: dict[str, Any] = {
            "run": self.run,
            "iteration": engine.state.iteration,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizers": optimizers,
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "best": (validated.best_metric, validated.best_metric_epoch),
            "history": self.history,
            "sums": self.sums,
        }
        self._write("resume.pt", state)
        self.saved_at = time.monotonic()

    def _write(self, name: str, state: Any) -> None:
        if not all(torch.isfinite(parameter).all() for parameter in self.network.parameters()):
            raise TrainingDiverged(
                f"a weight is not finite; {self.folder / 'resume.pt'} holds the last good state"
            )
        if rank_and_world_size()[0] == 0:
            with replacing(self.folder / name) as path:
                torch.save(state, path)
