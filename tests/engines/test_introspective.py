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
    reparameterize,
    variational_step,
)
from pathology_screen.networks.introspective_vae import IntrospectiveVAE


def setup(norm="group", seed=0):
    torch.manual_seed(seed)
    network = IntrospectiveVAE(size=16, channels=(8, 16), latent=6, norm=norm).double()
    return network, torch.rand(3, 1, 16, 16).double(), torch.randn(4, 3, 6).double()


def optimizers(network, kind=torch.optim.SGD, **options):
    return [kind(half.parameters(), **options) for half in (network.encoder, network.decoder)]


@pytest.mark.parametrize("norm", ["group", "affine"])
@pytest.mark.parametrize("gamma", [0.0, 1e-8, 0.7])
@pytest.mark.parametrize("reverse", [0.0, 0.005])
def test_step_equals_the_literal_definition(norm, gamma, reverse):
    """Same weights, same noise: losses and (by one SGD step) gradients agree to 1e-8."""
    network, image, noise = setup(norm)
    literal = copy.deepcopy(network)
    weights = IntrospectiveWeights(gamma_rec=gamma, reversed_embedding=reverse)
    before = [p.clone() for p in network.parameters()]
    step = introspective_step(network, *optimizers(network, lr=1.0), image, noise, weights)
    losses = literal_step(literal, *optimizers(literal, lr=1.0), image, noise, weights)
    ours = step["encoder_loss"], step["decoder_loss"]
    assert ours == pytest.approx([loss.item() for loss in losses], rel=1e-8)
    for start, a, b in zip(before, network.parameters(), literal.parameters()):
        torch.testing.assert_close(start - a, start - b, rtol=1e-8, atol=1e-12)


def test_several_adam_steps_stay_with_the_literal_definition():
    network, image, noise = setup()
    literal = copy.deepcopy(network)
    ours, theirs = (optimizers(n, torch.optim.Adam, lr=1e-3) for n in (network, literal))
    for index in range(5):
        introspective_step(network, *ours, image, noise + index, IntrospectiveWeights())
        literal_step(literal, *theirs, image, noise + index, IntrospectiveWeights())
    for a, b in zip(network.parameters(), literal.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_encoder_update_leaves_the_decoder_alone_and_the_other_way_round():
    network, image, noise = setup()
    still = torch.optim.SGD(network.encoder.parameters(), lr=0.0)
    _, moving = optimizers(network, lr=1.0)
    before = copy.deepcopy(network.state_dict())
    introspective_step(network, still, moving, image, noise, IntrospectiveWeights())
    state = network.state_dict()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert changed and all(name.startswith("decoder") for name in changed)


def test_variational_step_follows_the_gradient_of_the_elbo():
    network, image, noise = setup()
    literal = copy.deepcopy(network)
    weights = IntrospectiveWeights(beta_rec=3.0)
    step = variational_step(network, *optimizers(network, lr=1.0), image, noise, weights)
    mean, log_variance = literal.encode(image)
    reconstruction = literal.decoder(mean + (log_variance / 2).exp() * noise[0])
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
    loss = (3.0 * ((image - reconstruction) ** 2).sum((1, 2, 3)).mean() + kl) / 256
    loss.backward()
    assert step["loss"] == pytest.approx(loss.item(), rel=1e-8)
    for ours, theirs in zip(network.parameters(), literal.parameters()):
        torch.testing.assert_close(ours, theirs - theirs.grad, rtol=1e-8, atol=1e-12)


def test_noise_zero_gives_the_posterior_mean():
    mean, log_variance = torch.randn(2, 5), torch.randn(2, 5)
    assert torch.equal(reparameterize(mean, log_variance, torch.zeros(2, 5)), mean)
    torch.testing.assert_close(
        reparameterize(mean, log_variance, torch.ones(2, 5)), mean + log_variance.exp().sqrt()
    )


def test_the_step_counts_at_most_0_72_of_the_literal_flops():
    torch.manual_seed(0)
    network = IntrospectiveVAE(size=32, channels=(8, 16, 16), latent=8)
    image, noise = torch.rand(1, 1, 32, 32), torch.randn(4, 1, 8)
    counts = []
    for step, weights in (
        (introspective_step, IntrospectiveWeights()),
        (literal_step, IntrospectiveWeights(gamma_rec=1e-8)),
    ):
        with FlopCounterMode(display=False) as counter:
            step(network, *optimizers(network, lr=0.0), image, noise, weights)
        counts.append(counter.get_total_flops())
    assert 0.6 < counts[0] / counts[1] <= 0.72


@pytest.mark.parametrize("step", [variational_step, introspective_step])
def test_bfloat16_gives_the_losses_of_float32_and_leaves_float32_weights(step):
    torch.manual_seed(0)
    network = IntrospectiveVAE(size=32, channels=(8, 16, 16), latent=8)
    image, noise = torch.rand(4, 1, 32, 32), torch.randn(4, 4, 8)
    losses, steps = [], []
    for enabled in (False, True):
        trained = copy.deepcopy(network)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            given = optimizers(trained, lr=1e-2)
            losses.append(step(trained, *given, image, noise, IntrospectiveWeights()))
        pairs = zip(trained.parameters(), network.parameters())
        steps.append(torch.cat([(after - before).flatten() for after, before in pairs]))
    assert losses[1] == pytest.approx(losses[0], rel=0.05, abs=1e-3) and losses[1] != losses[0]
    assert steps[1].dtype == torch.float32
    assert torch.cosine_similarity(*steps, dim=0) > 0.99


@pytest.mark.parametrize("amp", [False, True])
def test_the_trainer_runs_the_network_in_bfloat16_only_if_told_to(amp, tmp_path):
    trainer = make_trainer(tmp_path, 2, 4, warm_up=1, amp=amp)
    seen = set()
    trainer.network.decoder.register_forward_hook(lambda *call: seen.add(call[-1].dtype))
    trainer.run()
    assert seen == {torch.bfloat16 if amp else torch.float32}


def test_a_nan_stops_before_anything_changes():
    network, image, noise = setup()
    before, broken = copy.deepcopy(network.state_dict()), image * float("nan")
    both = optimizers(network, lr=1.0)
    with pytest.raises(TrainingDiverged, match="nan"):
        introspective_step(network, *both, broken, noise, IntrospectiveWeights())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("norm", ["group", "affine"])
def test_gradient_ratios_equal_those_of_the_literal_definition(norm):
    network, image, noise = setup(norm)
    weights = IntrospectiveWeights(beta_rec=2.0, beta_kl=3.0, reversed_embedding=0.05)
    before = copy.deepcopy(network.state_dict())
    ratios = gradient_ratios(network, image, noise, weights)
    assert ratios == pytest.approx(literal_ratios(network, image, noise, weights), rel=1e-8)
    assert min(ratios.values()) > 1e-4
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_term_without_weight_has_no_gradient():
    ratios = gradient_ratios(*setup(), IntrospectiveWeights(reversed_embedding=0.0))
    assert ratios["gradient_reversed"] == 0.0


@pytest.mark.parametrize("batch", [4, 12])
def test_gradient_ratios_are_measured_on_the_first_batch_of_each_epoch(batch, tmp_path):
    trainer, measured = make_trainer(tmp_path, 2, batch), []

    @trainer.on(Events.ITERATION_COMPLETED)
    def note(engine):
        measured.append("gradient_exp_elbo" in engine.state.output)

    trainer.run()
    assert measured == [number % (12 // batch) == 0 for number in range(24 // batch)]
    log = pd.read_csv(tmp_path / "log.csv")
    names = ["gradient_exp_elbo", "gradient_reversed", "gradient_kl_generated"]
    assert log.loc[log.epoch > 0, names].gt(0).all(axis=None)
    assert log.loc[log.epoch == 0, names].isna().all(axis=None)
