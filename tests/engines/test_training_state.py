import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Events
from tiny_training import make_trainer

from pathology_screen.engines import TrainingDiverged
from pathology_screen.errors import ConfigError

SCRIPT = str(Path(__file__).with_name("tiny_training.py"))


@pytest.fixture(autouse=True)
def one_thread_and_default_dtype():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


METHODS = ["ra", "ae_s", "vae", "dae", "mkd"]


@pytest.mark.parametrize("method", METHODS)
def test_killed_within_an_epoch_it_ends_as_if_uninterrupted(method, tmp_path):
    """SIGKILL after iteration 5 of 3 epochs of 3; the resumed run's weights, best weights and log
    equal those of a whole run."""
    killed = subprocess.run(
        [sys.executable, SCRIPT, method, str(tmp_path / "killed"), "3", "4", "5"]
    )
    assert killed.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "killed/resume.pt", weights_only=True)["iteration"] in (4, 5)
    resumed, whole = (
        make_trainer(tmp_path / run, 3, 4, method=method) for run in ("killed", "whole")
    )
    resumed.run()
    whole.run()
    assert resumed.state.iteration == whole.state.iteration == 9
    assert equal(resumed.network.state_dict(), whole.network.state_dict())
    assert equal(
        *(torch.load(tmp_path / run / "model.pt", weights_only=True) for run in ("killed", "whole"))
    )
    assert (tmp_path / "killed/log.csv").read_text() == (tmp_path / "whole/log.csv").read_text()


def test_more_epochs_go_on_where_the_run_ended(tmp_path):
    make_trainer(tmp_path / "a", 1, 4).run()
    longer, whole = make_trainer(tmp_path / "a", 2, 4), make_trainer(tmp_path / "b", 2, 4)
    longer.run()
    whole.run()
    assert equal(longer.network.state_dict(), whole.network.state_dict())


def test_best_weights_and_log(tmp_path):
    make_trainer(tmp_path, 4, 4).run()
    log = pd.read_csv(tmp_path / "log.csv")
    assert log.epoch.tolist() == [0, 1, 2, 3, 4] and log.val_mse.notna().all()
    best = make_trainer(tmp_path / "best", 1, 4).network
    best.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    from tiny_training import images

    with torch.no_grad():
        error = (best(images(4, seed=1)) - images(4, seed=1)).square().mean().item()
    assert error == pytest.approx(log.val_mse.min(), rel=1e-5)


def test_patience_stops_training(tmp_path):
    trainer = make_trainer(tmp_path, 50, 4, patience=3, learning_rate=0.0)
    trainer.run()
    assert (
        trainer.state.epoch == 3
    )  # the weights at the start are the best, and three epochs brought nothing


@pytest.mark.parametrize("warm_up", [0, 2])
def test_the_weights_at_the_start_compete_as_epoch_0(warm_up, tmp_path):
    """With a rate of 0 no epoch betters them."""
    trainer = make_trainer(tmp_path, 4, 4, learning_rate=0.0, warm_up=warm_up)
    start = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.run()
    log = pd.read_csv(tmp_path / "log.csv")
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["best"] == (log.val_mse[0], 0)
    assert log.epoch[0] == log.iteration[0] == 0 and np.isnan(log.loss[0])
    assert equal(torch.load(tmp_path / "model.pt", weights_only=True), start)


def test_warm_up_does_not_compete_for_the_best_weights(tmp_path):
    """Though its epochs better the weights at the start; the best one is of what follows, however
    bad."""
    make_trainer(tmp_path, 5, 4, learning_rate=3e-3, warm_up=4).run()
    log = pd.read_csv(tmp_path / "log.csv").set_index("epoch")
    assert log.val_mse[1:4].min() < log.val_mse[0]
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["best"][1] in (0, 5)


def test_an_epoch_that_is_not_validated_has_no_metric(tmp_path):
    """The first and the last ones are, whatever the interval."""
    make_trainer(tmp_path, 5, 4, val_interval=2).run()
    assert pd.read_csv(tmp_path / "log.csv").val_mse.notna().tolist() == [
        True,
        False,
        True,
        False,
        True,
        True,
    ]


def test_a_run_shorter_than_the_interval_of_validation_keeps_what_it_learned(tmp_path):
    trainer = make_trainer(tmp_path, 2, 4, val_interval=5)
    start = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.run()
    log = pd.read_csv(tmp_path / "log.csv")
    assert log.val_mse[2] < log.val_mse[0]
    assert not equal(torch.load(tmp_path / "model.pt", weights_only=True), start)


def test_a_run_that_patience_ended_stays_ended(tmp_path):
    make_trainer(tmp_path, 50, 4, patience=3, learning_rate=0.0).run()
    model = (tmp_path / "model.pt").read_bytes()
    again = make_trainer(tmp_path, 50, 4, patience=3, learning_rate=0.0)
    again.run()
    assert again.state.epoch == 3 and (tmp_path / "model.pt").read_bytes() == model


def test_patience_waits_for_the_first_validation_after_the_warm_up(tmp_path):
    trainer = make_trainer(tmp_path, 6, 4, patience=2, warm_up=4, learning_rate=0.0)
    trainer.run()
    assert trainer.state.epoch == 6


def test_resuming_takes_the_learning_rate_that_is_configured_now(tmp_path):
    make_trainer(tmp_path, 1, 4).run()
    slower = make_trainer(tmp_path, 2, 4, learning_rate=1e-5)
    slower.run()
    assert slower.encoder_optimizer.param_groups[0]["lr"] == 1e-5


def test_a_warm_up_that_fills_the_training_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="leaves nothing"):
        make_trainer(tmp_path, 2, 4, warm_up=2)


def test_a_run_resumes_where_the_schedule_had_brought_the_learning_rate(tmp_path):
    """With a rate near 0 nothing improves, so that the rate falls to a tenth every second epoch."""
    options = {"method": "ae_s", "learning_rate": 1e-12, "plateau": 1}
    make_trainer(tmp_path / "a", 4, 4, **options).run()
    longer, whole = (make_trainer(tmp_path / run, 7, 4, **options) for run in "ab")
    longer.run()
    whole.run()
    rates = [trainer.optimizer.param_groups[0]["lr"] for trainer in (longer, whole)]
    assert rates[0] == rates[1] == pytest.approx(1e-15)
    assert equal(longer.network.state_dict(), whole.network.state_dict())


@pytest.mark.parametrize("method", ["vae", "dae"])
def test_a_loss_that_is_not_finite_stops_training(method, tmp_path):
    trainer = make_trainer(tmp_path, 5, 4, method=method)

    @trainer.on(Events.ITERATION_STARTED(once=5))
    def poison(engine):
        with torch.no_grad():
            next(engine.network.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingDiverged, match="loss is nan"):
        trainer.run()
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["iteration"] == 4


def test_divergence_keeps_the_last_good_state(tmp_path):
    trainer = make_trainer(tmp_path, 5, 4)

    @trainer.on(Events.ITERATION_STARTED(once=5))
    def poison(engine):
        with torch.no_grad():
            engine.network.encoder.fc.bias.fill_(float("nan"))

    with pytest.raises(TrainingDiverged):
        trainer.run()
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert state["iteration"] == 4 and all(
        value.isfinite().all() for value in state["network"].values()
    )


def test_resuming_with_other_data_is_refused(tmp_path):
    make_trainer(tmp_path, 1, 4).run()
    with pytest.raises(ConfigError, match="another run: batch differ"):
        make_trainer(tmp_path, 2, 6).run()
    with pytest.raises(ConfigError, match="another run: loss differ"):
        make_trainer(tmp_path, 2, 4, identity={"loss": 2}).run()


@pytest.mark.parametrize(
    "method",
    [
        "ra",
        "vae",
        *(pytest.param(method, marks=pytest.mark.slow) for method in ("ae_s", "dae", "mkd")),
    ],
)
def test_two_ranks_reproduce_one_process_with_the_double_batch(method, tmp_path):
    """In float64, since Adam divides rounding errors by gradients near zero."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        SCRIPT,
        method,
        str(tmp_path),
        "2",
        "2",
    ]
    subprocess.run(command, check=True, capture_output=True)
    torch.set_default_dtype(torch.float64)
    one = make_trainer(tmp_path / "one", 2, 4, method=method)
    one.run()
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert equal(*ranks)
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-5, atol=1e-12)
