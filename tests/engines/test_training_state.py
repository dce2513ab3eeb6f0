"""Runs that are killed, resumed, stopped early, shared by two processes, or diverge."""

import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tiny_training
import torch
from ignite.engine import Events
from tiny_training import equal, images, make_trainer, train, weights

from pathology_screen.engines import TrainingDiverged
from pathology_screen.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread_and_default_dtype")

METHODS = ["ra", "ae_s", "vae", "dae", "mkd"]


def load(folder, name="model.pt"):
    return torch.load(folder / name, weights_only=True)


@pytest.mark.parametrize("method", METHODS)
def test_killed_within_an_epoch_it_ends_as_if_uninterrupted(method, tmp_path):
    """SIGKILL after iteration 5 of 3 epochs of 3; the resumed run's weights, best weights and log
    equal those of a whole run."""
    folders = killed, whole = tmp_path / "killed", tmp_path / "whole"
    done = subprocess.run(
        [sys.executable, tiny_training.__file__, method, str(killed), "3", "4", "5"]
    )
    assert done.returncode == -signal.SIGKILL
    assert load(killed, "resume.pt")["iteration"] in (4, 5)
    runs = [train(folder, 3, 4, method=method) for folder in folders]
    assert [run.state.iteration for run in runs] == [9, 9]
    assert equal(*map(weights, runs)) and equal(*map(load, folders))
    assert (killed / "log.csv").read_text() == (whole / "log.csv").read_text()


def test_more_epochs_go_on_where_the_run_ended(tmp_path):
    train(tmp_path / "a", 1, 4)
    assert equal(weights(train(tmp_path / "a", 2, 4)), weights(train(tmp_path / "b", 2, 4)))


def test_best_weights_and_log(tmp_path):
    train(tmp_path, 4, 4)
    log = pd.read_csv(tmp_path / "log.csv")
    assert log.epoch.tolist() == [0, 1, 2, 3, 4] and log.val_mse.notna().all()
    best, healthy = make_trainer(tmp_path / "best", 1, 4).network, images(4, seed=1)
    best.load_state_dict(load(tmp_path))
    with torch.no_grad():
        error = (best(healthy) - healthy).square().mean().item()
    assert error == pytest.approx(log.val_mse.min(), rel=1e-5)


@pytest.mark.parametrize(
    ("epochs", "warm_up", "patience", "ended"),
    [(50, 0, 3, 3), (6, 4, 2, 6)],
    ids=["three epochs bring nothing", "it waits for the warm-up"],
)
def test_patience_stops_training_and_a_run_that_it_ended_stays_ended(
    epochs, warm_up, patience, ended, tmp_path
):
    options = {"patience": patience, "warm_up": warm_up, "learning_rate": 0.0}
    assert train(tmp_path, epochs, 4, **options).state.epoch == ended
    model = (tmp_path / "model.pt").read_bytes()
    assert train(tmp_path, epochs, 4, **options).state.epoch == ended
    assert (tmp_path / "model.pt").read_bytes() == model


@pytest.mark.parametrize("warm_up", [0, 2])
def test_the_weights_at_the_start_compete_as_epoch_0(warm_up, tmp_path):
    """With a rate of 0 no epoch betters them."""
    trainer = make_trainer(tmp_path, 4, 4, learning_rate=0.0, warm_up=warm_up)
    start = weights(trainer)
    trainer.run()
    log = pd.read_csv(tmp_path / "log.csv")
    assert load(tmp_path, "resume.pt")["best"] == (log.val_mse[0], 0)
    assert log.epoch[0] == log.iteration[0] == 0 and np.isnan(log.loss[0])
    assert equal(load(tmp_path), start)


def test_warm_up_does_not_compete_for_the_best_weights(tmp_path):
    """Though its epochs better the weights at the start; the best one comes later. The weights that
    it ends with are kept apart."""
    train(tmp_path / "longer", 6, 4, learning_rate=3e-3, warm_up=4)
    train(tmp_path, 5, 4, learning_rate=3e-3, warm_up=4)
    warmed_up = load(tmp_path / "warm_up")
    assert equal(warmed_up, load(tmp_path / "longer/warm_up"))
    averaged = load(tmp_path, "resume.pt")["averaged"]
    last = {name.removeprefix("module."): value for name, value in averaged.items()}
    assert any(not torch.equal(last[name], value) for name, value in warmed_up.items())
    log = pd.read_csv(tmp_path / "log.csv").set_index("epoch")
    assert log.val_mse[1:4].min() < log.val_mse[0]
    assert load(tmp_path, "resume.pt")["best"][1] in (0, 5)


def test_a_warm_up_that_fills_the_training_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="leaves nothing"):
        make_trainer(tmp_path, 2, 4, warm_up=2)


def test_the_first_and_the_last_epoch_are_validated_whatever_the_interval(tmp_path):
    """So a run that is shorter than it keeps what it learned."""
    for epochs, interval, validated in (
        (5, 2, [True, False, True, False, True, True]),
        (2, 5, [True, False, True]),
    ):
        trainer = make_trainer(tmp_path / str(epochs), epochs, 4, val_interval=interval)
        start = weights(trainer)
        trainer.run()
        log = pd.read_csv(tmp_path / str(epochs) / "log.csv")
        assert log.val_mse.notna().tolist() == validated
        assert log.val_mse.iloc[-1] < log.val_mse[0]
        assert not equal(load(tmp_path / str(epochs)), start)


def test_resuming_takes_the_learning_rate_that_is_configured_now(tmp_path):
    train(tmp_path, 1, 4)
    slower = train(tmp_path, 2, 4, learning_rate=1e-5)
    assert slower.optimizers[0].param_groups[0]["lr"] == 1e-5


def test_a_run_resumes_where_the_schedule_had_brought_the_learning_rate(tmp_path):
    """With a rate near 0 nothing improves, so that the rate falls to a tenth every second epoch."""
    options = {"method": "ae_s", "learning_rate": 1e-12, "plateau": 1}
    train(tmp_path / "a", 4, 4, **options)
    runs = [train(tmp_path / run, 7, 4, **options) for run in "ab"]
    rates = [trainer.optimizer.param_groups[0]["lr"] for trainer in runs]
    assert rates[0] == rates[1] == pytest.approx(1e-15)
    assert equal(*map(weights, runs))


@pytest.mark.parametrize("method", ["ra", "vae", "dae"])
def test_divergence_keeps_the_last_good_state(method, tmp_path):
    trainer = make_trainer(tmp_path, 5, 4, method=method)

    @trainer.on(Events.ITERATION_STARTED(once=5))
    def poison(engine):
        with torch.no_grad():
            next(engine.network.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingDiverged, match="loss is nan"):
        trainer.run()
    state = load(tmp_path, "resume.pt")
    assert state["iteration"] == 4
    assert all(value.isfinite().all() for value in state["network"].values())


def test_resuming_with_other_data_is_refused(tmp_path):
    train(tmp_path, 1, 4)
    with pytest.raises(ConfigError, match="another run: batch differ"):
        train(tmp_path, 2, 6)
    with pytest.raises(ConfigError, match="another run: loss differ"):
        train(tmp_path, 2, 4, identity={"loss": 2})
