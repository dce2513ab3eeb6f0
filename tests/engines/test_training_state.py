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
from tiny_training import images, make_trainer, train, weights

from pathology_screen.engines import TrainingDiverged
from pathology_screen.errors import ConfigError

SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in ("ae_s", "dae", "mkd")]


@pytest.fixture(autouse=True)
def one_thread_and_default_dtype():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


def load(folder, name="model.pt"):
    return torch.load(folder / name, weights_only=True)


def read_log(folder):
    return pd.read_csv(folder / "log.csv").set_index("epoch")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("method", ["ra", "ae_s", "vae", "dae", "mkd"])
def test_killed_within_an_epoch_it_ends_as_if_uninterrupted(method, tmp_path):
    """SIGKILL after iteration 5 of 3 epochs of 3; the resumed run's weights, best weights and log
    equal those of a whole run, though its second epoch was meant to be the last."""
    folders = killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, tiny_training.__file__, method, str(killed), "3", "4", "5"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert load(killed, "resume.pt")["iteration"] in (4, 5)
    train(killed, 2, 4, method=method)
    runs = [train(folder, 3, 4, method=method) for folder in folders]
    assert [run.state.iteration for run in runs] == [9, 9]
    assert equal(*map(weights, runs)) and equal(*map(load, folders))
    assert (killed / "log.csv").read_text() == (whole / "log.csv").read_text()


@pytest.mark.parametrize("method", ["ra", "vae", *SLOW])
def test_two_ranks_reproduce_one_process_with_the_double_batch(method, tmp_path):
    """In float64, since Adam divides rounding errors by gradients near zero."""
    torchrun = [*("-m", "torch.distributed.run"), "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *torchrun, tiny_training.__file__, method, str(tmp_path), "2", "2"]
    subprocess.run(command, check=True, capture_output=True)
    torch.set_default_dtype(torch.float64)
    one = weights(train(tmp_path / "one", 2, 4, method=method))
    ranks = [load(tmp_path, f"rank{rank}.pt") for rank in (0, 1)]
    assert equal(*ranks)
    for name, value in one.items():
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-5, atol=1e-12)


def test_best_weights_and_log(tmp_path):
    """Of the averaged weights."""
    best, healthy = train(tmp_path, 4, 4).network, images(4, seed=1)
    log = read_log(tmp_path)
    assert log.index.tolist() == [0, 1, 2, 3, 4] and log.val_mse.notna().all()
    best.load_state_dict(load(tmp_path))
    with torch.no_grad():
        error = (best(healthy) - healthy).square().mean().item()
    assert error == pytest.approx(log.val_mse.min(), rel=1e-5)


@pytest.mark.parametrize(
    ("epochs", "warm_up", "patience", "ended"),
    [(50, 0, 3, 3), (6, 4, 2, 6)],
    ids=["three epochs bring nothing", "it waits for the warm-up"],
)
def test_patience_stops_training_and_the_weights_at_the_start_compete_as_epoch_0(
    epochs, warm_up, patience, ended, tmp_path
):
    """With a rate of 0 no epoch betters them; a run that it ended stays ended."""
    options = {"patience": patience, "warm_up": warm_up, "learning_rate": 0.0}
    trainer = make_trainer(tmp_path, epochs, 4, **options)
    start = weights(trainer)
    trainer.run()
    log = read_log(tmp_path)
    assert load(tmp_path, "resume.pt")["best"] == (log.val_mse[0], 0)
    assert log.iteration[0] == 0 and np.isnan(log.loss[0])
    assert equal(load(tmp_path), start)
    model = (tmp_path / "model.pt").read_bytes()
    again = train(tmp_path, epochs, 4, **options)
    assert trainer.state.epoch == again.state.epoch == ended
    assert (tmp_path / "model.pt").read_bytes() == model


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
    log = read_log(tmp_path)
    assert log.val_mse[1:4].min() < log.val_mse[0]
    assert load(tmp_path, "resume.pt")["best"][1] in (0, 5)


@pytest.mark.parametrize(
    ("epochs", "interval", "validated"),
    [(5, 2, [True, False, True, False, True, True]), (2, 5, [True, False, True])],
)
def test_the_first_and_the_last_epoch_are_validated_whatever_the_interval(
    epochs, interval, validated, tmp_path
):
    """So a run that is shorter than it keeps what it learned."""
    trainer = make_trainer(tmp_path, epochs, 4, val_interval=interval)
    start = weights(trainer)
    trainer.run()
    log = read_log(tmp_path)
    assert log.val_mse.notna().tolist() == validated
    assert log.val_mse.iloc[-1] < log.val_mse[0] and not equal(load(tmp_path), start)


def test_a_run_resumes_at_the_learning_rate_of_now_or_where_the_schedule_had_brought_it(tmp_path):
    """With a rate near 0 nothing improves, so that the rate falls to a tenth every second epoch."""
    train(tmp_path, 1, 4)
    slower = train(tmp_path, 2, 4, learning_rate=1e-5)
    assert slower.optimizers[0].param_groups[0]["lr"] == 1e-5

    options = {"method": "vae", "learning_rate": 1e-12, "train#schedule#patience": 1}
    train(tmp_path / "a", 4, 4, **options)
    runs = [train(tmp_path / run, 7, 4, **options) for run in "ab"]
    rates = [trainer.optimizer.param_groups[0]["lr"] for trainer in runs]
    assert rates[0] == rates[1] == pytest.approx(1e-15)
    assert equal(*map(weights, runs))


@pytest.mark.parametrize("method", ["ra", "vae"])
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


def test_other_data_and_a_warm_up_that_fills_the_training_are_refused(tmp_path):
    train(tmp_path, 1, 4)
    with pytest.raises(ConfigError, match="another run: batch differ"):
        train(tmp_path, 2, 6)
    with pytest.raises(ConfigError, match="another run: loss differ"):
        train(tmp_path, 2, 4, **{"train#handlers#1#identity#loss": 2})
    with pytest.raises(RuntimeError) as caught:  # MONAI wraps it
        train(tmp_path, 2, 4, warm_up=2)
    cause = caught.value.__cause__
    assert isinstance(cause, ConfigError) and "leaves nothing" in str(cause)
