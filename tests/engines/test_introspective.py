import copy

import pandas as pd
import pytest
import torch
from ignite.engine import Events
from literal import literal_ratios, literal_step
from tiny_training import make_trainer
from torch.utils.flop_counter import FlopCounterMode

from pathology_screen.engines.introspective import (
    IntrospectiveWeights,
    TrainingDiverged,
    gradient_ratios,
    introspective_step,
    variational_step,
)
from pathology_screen.networks.introspective_vae import IntrospectiveVAE

WEIGHTS = IntrospectiveWeights()


def setup(norm="group"):
    torch.manual_seed(0)
    network = IntrospectiveVAE(size=16, channels=(8, 16), latent=6, norm=norm).double()
    return network, torch.rand(3, 1, 16, 16).double(), torch.randn(4, 3, 6).double()


def small(batch):
    torch.manual_seed(0)
    network = IntrospectiveVAE(size=32, channels=(8, 16, 16), latent=8)
    return network, torch.rand(batch, 1, 32, 32), torch.randn(4, batch, 8)


def optimizers(network, kind=torch.optim.SGD, lr=1.0):
    return [kind(half.parameters(), lr=lr) for half in (network.encoder, network.decoder)]


def check_same(network, other, **tolerance):
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("norm", ["group", "affine"])
@pytest.mark.parametrize("gamma", [0.0, 1e-8, 0.7])
@pytest.mark.parametrize("reverse", [0.0, 0.005])
def test_step_equals_the_literal_definition(norm, gamma, reverse):
    """Same weights, same noise: losses, gradients (by one SGD step), and steps of Adam."""
    network, image, noise = setup(norm)
    literal = copy.deepcopy(network)
    weights = IntrospectiveWeights(gamma_rec=gamma, reversed_embedding=reverse)
    step = introspective_step(network, *optimizers(network), image, noise, weights)
    losses = literal_step(literal, *optimizers(literal), image, noise, weights)
    ours = step["encoder_loss"], step["decoder_loss"]
    assert ours == pytest.approx([loss.item() for loss in losses], rel=1e-8)
    check_same(network, literal, rtol=1e-8, atol=1e-12)

    ours, theirs = (optimizers(n, torch.optim.Adam, 1e-3) for n in (network, literal))
    for index in range(3):
        introspective_step(network, *ours, image, noise + index, weights)
        literal_step(literal, *theirs, image, noise + index, weights)
    check_same(network, literal, rtol=1e-6, atol=1e-9)


def test_variational_step_follows_the_gradient_of_the_elbo():
    network, image, noise = setup()
    literal = copy.deepcopy(network)
    weights = IntrospectiveWeights(beta_rec=3.0)
    step = variational_step(network, *optimizers(network), image, noise, weights)
    mean, log_variance = literal.encode(image)
    reconstruction = literal.decoder(mean + (log_variance / 2).exp() * noise[0])
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
    loss = (3.0 * ((image - reconstruction) ** 2).sum((1, 2, 3)).mean() + kl) / 256
    loss.backward()
    assert step["loss"] == pytest.approx(loss.item(), rel=1e-8)
    for optimizer in optimizers(literal):
        optimizer.step()
    check_same(network, literal, rtol=1e-8, atol=1e-12)


def test_the_step_counts_at_most_0_72_of_the_literal_flops():
    network, image, noise = small(1)
    counts = []
    for step, gamma in ((introspective_step, 0.0), (literal_step, 1e-8)):
        with FlopCounterMode(display=False) as counter:
            weights = IntrospectiveWeights(gamma_rec=gamma)
            step(network, *optimizers(network, lr=0.0), image, noise, weights)
        counts.append(counter.get_total_flops())
    assert 0.6 < counts[0] / counts[1] <= 0.72


@pytest.mark.parametrize("step", [variational_step, introspective_step])
def test_bfloat16_gives_the_losses_of_float32_and_leaves_float32_weights(step):
    network, image, noise = small(4)
    losses, steps = [], []
    for enabled in (False, True):
        trained = copy.deepcopy(network)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(step(trained, *optimizers(trained, lr=1e-2), image, noise, WEIGHTS))
        pairs = zip(trained.parameters(), network.parameters())
        steps.append(torch.cat([(after - before).flatten() for after, before in pairs]))
    assert losses[1] == pytest.approx(losses[0], rel=0.05, abs=1e-3) and losses[1] != losses[0]
    assert steps[1].dtype == torch.float32
    assert torch.cosine_similarity(*steps, dim=0) > 0.99


def test_a_nan_stops_before_anything_changes():
    network, image, noise = setup()
    before = copy.deepcopy(network)
    with pytest.raises(TrainingDiverged, match="nan"):
        introspective_step(network, *optimizers(network), image * float("nan"), noise, WEIGHTS)
    check_same(network, before, rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["group", "affine"])
def test_gradient_ratios_equal_those_of_the_literal_definition(norm):
    network, image, noise = setup(norm)
    weights = IntrospectiveWeights(beta_rec=2.0, beta_kl=3.0, reversed_embedding=0.05)
    before = copy.deepcopy(network)
    ratios = gradient_ratios(network, image, noise, weights)
    assert all(parameter.grad is None for parameter in network.parameters())
    check_same(network, before, rtol=0, atol=0)
    assert ratios == pytest.approx(literal_ratios(network, image, noise, weights), rel=1e-8)
    assert min(ratios.values()) > 1e-4
    unweighted = IntrospectiveWeights(reversed_embedding=0.0)
    assert gradient_ratios(network, image, noise, unweighted)["gradient_reversed"] == 0.0


@pytest.mark.parametrize(("batch", "amp"), [(4, False), (12, True)])
def test_the_trainer_measures_ratios_once_an_epoch_and_runs_in_bfloat16_if_told_to(
    batch, amp, tmp_path
):
    trainer, outputs, seen = make_trainer(tmp_path, 2, batch, warm_up=1, amp=amp), [], set()
    trainer.network.decoder.register_forward_hook(lambda *call: seen.add(call[-1].dtype))
    note = lambda engine: outputs.append(engine.state.output)  # noqa: E731
    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    assert seen == {torch.bfloat16 if amp else torch.float32}
    measured = ["gradient_exp_elbo" in output for output in outputs]
    assert measured == [number % (12 // batch) == 0 for number in range(24 // batch)]
    log = pd.read_csv(tmp_path / "log.csv").set_index("epoch")
    ratios = log[["gradient_exp_elbo", "gradient_reversed", "gradient_kl_generated"]]
    assert ratios.loc[1:].gt(0).all(axis=None) and ratios.loc[0].isna().all()
