"""Train the encoder and decoder of RA and SI-VAE against each other (Eq. 2 and 4)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.optim import Optimizer

from pathology_screen.engines.training_batch import average_over_ranks
from pathology_screen.engines.training_state import TrainingDiverged
from pathology_screen.errors import ConfigError
from pathology_screen.losses import exp_elbo, kl_divergence, reversed_embedding_loss, squared_error
from pathology_screen.networks.introspective_vae import IntrospectiveVAE


@dataclass(frozen=True)
class IntrospectiveWeights:
    """Weights of the terms of Eq. 2 and 4, with the defaults of the released RA code."""

    beta_rec: float = 0.5  # of the squared error
    beta_kl: float = 1.0  # of the KL divergence of real images (encoder), of generated (decoder)
    beta_neg: float = 128.0  # of the KL divergence of generated images inside expELBO
    reversed_embedding: float = 0.005  # lambda of Eq. 4; 0 gives SI-VAE
    gamma_rec: float = 0.0  # of the decoder's error on generated images; 0 skips two of its passes


def reparameterize(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Return a sample of N(mean, exp(log_variance)) from standard normal noise; all (B, latent)."""
    return mean + torch.exp(0.5 * log_variance) * noise


def variational_step(
    network: IntrospectiveVAE,
    encoder_optimizer: Optimizer,
    decoder_optimizer: Optimizer,
    image: Tensor,
    noise: Tensor,
    weights: IntrospectiveWeights,
) -> dict[str, float]:
    """Update both halves on -ELBO alone (Eq. 1), as a plain VAE, on the first row of the noise; a
    quarter of the cost of `introspective_step`, whose arguments and errors it has."""
    mean, log_variance = network.encode(image)
    reconstruction = network.decoder(reparameterize(mean, log_variance, noise[0]))
    error = squared_error(image, reconstruction).mean()
    kl_real = kl_divergence(mean, log_variance).mean()
    loss = (weights.beta_rec * error + weights.beta_kl * kl_real) / image[0].numel()
    _update(loss, encoder_optimizer, decoder_optimizer)
    return {"loss": loss.item(), "squared_error": error.item(), "kl_real": kl_real.item()}


def introspective_step(
    network: IntrospectiveVAE,
    encoder_optimizer: Optimizer,
    decoder_optimizer: Optimizer,
    image: Tensor,
    noise: Tensor,
    weights: IntrospectiveWeights,
) -> dict[str, float]:
    """Update the encoder, then the decoder, on one batch.

    Gradients are asked for the encoder's or the decoder's parameters alone, so the other half is
    frozen without being told. The decoder does not change between the two updates, so its two
    outputs serve both.

    Args:
        image: (B, 1, H, W) in [0, 1].
        noise: (4, B, latent) standard normal: for z of the image, the sampled latent, z of the
            reconstruction, z of the sample.

    Returns:
        Losses, squared error, KL divergences in nats, reversed embedding loss, by name.

    Raises:
        TrainingDiverged: if a loss is not finite.
    """
    w, scale = weights, 1.0 / image[0].numel()
    (reconstruction, sample), elbo, repelled, values = _encoder_terms(network, image, noise, w)
    encoder_loss = elbo + repelled + w.reversed_embedding * values["reversed_embedding"]
    _update(encoder_loss, encoder_optimizer, retain_graph=True)

    # decoder: -ELBO(x) + KL(generated), seen by the updated encoder
    posterior_r, posterior_s = network.encode(reconstruction), network.encode(sample)
    kl_generated = 0.5 * (kl_divergence(*posterior_r).mean() + kl_divergence(*posterior_s).mean())
    decoder_loss = scale * (w.beta_rec * values["squared_error"] + w.beta_kl * kl_generated)
    if w.gamma_rec:
        again_r = network.decoder(reparameterize(*posterior_r, noise[2]).detach())
        again_s = network.decoder(reparameterize(*posterior_s, noise[3]).detach())
        error_r = squared_error(reconstruction.detach(), again_r).mean()
        error_s = squared_error(sample.detach(), again_s).mean()
        error_generated = 0.5 * (error_r + error_s)
        decoder_loss = decoder_loss + scale * w.gamma_rec * w.beta_rec * error_generated
    _update(decoder_loss, decoder_optimizer)

    losses = {"encoder_loss": encoder_loss, "decoder_loss": decoder_loss}
    values = {"loss": encoder_loss + decoder_loss, **losses, **values}
    return dict(zip(values, torch.stack(list(values.values())).tolist()))


def gradient_ratios(
    network: IntrospectiveVAE, image: Tensor, noise: Tensor, weights: IntrospectiveWeights
) -> dict[str, float]:
    """Return how large the gradients of other terms are beside the ELBO's (Eq. 2 and 4), as ratios
    of norms: "gradient_exp_elbo" and "gradient_reversed" for the encoder's parameters,
    "gradient_kl_generated" for the decoder's. Arguments are those of `introspective_step`; no
    parameter is updated."""
    w, encoder, decoder = weights, network.encoder, network.decoder
    generated, elbo, repelled, values = _encoder_terms(network, image, noise, w)
    kl_r, kl_s = (kl_divergence(*network.encode(one)).mean() for one in generated)

    def norm(loss: Tensor, half: nn.Module) -> float:
        if not loss.requires_grad:  # of a term without weight
            return 0.0
        parameters = list(half.parameters())
        parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        squares = [part.square().sum() for part in parts if part is not None]
        return float(torch.stack(squares).sum().sqrt())

    of_elbo, of_error = norm(elbo, encoder), norm(w.beta_rec * values["squared_error"], decoder)
    of_reversed = norm(w.reversed_embedding * values["reversed_embedding"], encoder)
    return {
        "gradient_exp_elbo": norm(repelled, encoder) / of_elbo,
        "gradient_reversed": of_reversed / of_elbo,
        "gradient_kl_generated": norm(0.5 * w.beta_kl * (kl_r + kl_s), decoder) / of_error,
    }


def _encoder_terms(
    network: IntrospectiveVAE, image: Tensor, noise: Tensor, weights: IntrospectiveWeights
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor, dict[str, Tensor]]:
    """What the encoder's loss is made of: reconstruction and sample (B, 1, H, W), with graphs to
    the decoder, of the reconstruction to the encoder too; -ELBO(x); 1 / alpha exp(alpha
    ELBO(generated)); and by name what a step tells, means over the batch without their weights."""
    encoder, decoder, w = network.encoder, network.decoder, weights
    scale = 1.0 / image[0].numel()
    mean, log_variance, embeddings = encoder(image)
    reconstruction = decoder(reparameterize(mean, log_variance, noise[0]))
    sample = decoder(noise[1])
    error = squared_error(image, reconstruction).mean()
    kl_real = kl_divergence(mean, log_variance).mean()
    elbo = scale * (w.beta_rec * error + w.beta_kl * kl_real)

    mean_r, log_variance_r, embeddings_r = encoder(reconstruction.detach())
    mean_s, log_variance_s, _ = encoder(sample.detach())
    again_r = decoder(reparameterize(mean_r, log_variance_r, noise[2]))
    again_s = decoder(reparameterize(mean_s, log_variance_s, noise[3]))
    error_r = squared_error(reconstruction, again_r)
    error_s = squared_error(sample.detach(), again_s)
    kl_r, kl_s = kl_divergence(mean_r, log_variance_r), kl_divergence(mean_s, log_variance_s)
    exp_r = exp_elbo(error_r, kl_r, w.beta_rec, w.beta_neg, scale)
    exp_s = exp_elbo(error_s, kl_s, w.beta_rec, w.beta_neg, scale)
    repelled = 0.25 * (exp_r.mean() + exp_s.mean())
    reverse = image.new_zeros(())
    if w.reversed_embedding:
        reverse = reversed_embedding_loss(embeddings, embeddings_r)
    values = {"squared_error": error, "kl_real": kl_real, "kl_reconstructed": kl_r.mean()}
    values |= {"kl_sampled": kl_s.mean(), "reversed_embedding": reverse}
    return (reconstruction, sample), elbo, repelled, values


def _update(loss: Tensor, *optimizers: Optimizer, retain_graph: bool = False) -> None:
    """Step the optimizers along the gradient for their parameters, averaged over the ranks, or
    raise TrainingDiverged before any of them is changed."""
    if not torch.isfinite(loss):
        raise TrainingDiverged(
            f"the loss is {loss.item()}; lower the learning rate or beta_neg, then resume"
        )
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [parameter for group in groups for parameter in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=retain_graph)
    average_over_ranks(gradients)
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient
    for optimizer in optimizers:
        optimizer.step()


class IntrospectiveTrainer(Trainer):
    """Run `introspective_step` on every batch, after `warm_up` epochs of `variational_step` (paper:
    none); on the first of each epoch also measure `gradient_ratios`.

    Args:
        network: on the device.
        train_data_loader: yields batches without end from `iteration` on (see `SeededBatches`).
        weights: fields of `IntrospectiveWeights`.
        amp: run the network in bfloat16 where autocast deems it safe; losses, gradients and
            weights stay float32. Half precision as wide in range as float32 needs no scaled loss.
        options: `device`, `epoch_length` and `prepare_batch` of MONAI's `Trainer`; the latter gives
            image, target (not used) and `(noise,)` with noise (B, 4, latent), as `TrainingBatch`.

    Raises:
        ConfigError: if the warm-up is not shorter than the training.
    """

    def __init__(
        self,
        network: IntrospectiveVAE,
        encoder_optimizer: Optimizer,
        decoder_optimizer: Optimizer,
        max_epochs: int,
        train_data_loader: Iterable,
        weights: Mapping[str, float] | None = None,
        warm_up: int = 0,
        amp: bool = False,
        train_handlers: Sequence | None = None,
        **options: Any,
    ) -> None:
        if warm_up >= max_epochs:
            raise ConfigError(
                f"a warm-up of {warm_up} epochs leaves nothing of {max_epochs} epochs of training"
            )
        options |= {"data_loader": train_data_loader, "handlers": train_handlers}
        super().__init__(max_epochs=max_epochs, decollate=False, **options)
        self.network, self.warm_up, self.autocast = network, warm_up, amp
        self.optimizers = encoder_optimizer, decoder_optimizer
        self.weights = IntrospectiveWeights(**(weights or {}))

    def _iteration(self, engine: Any, batchdata: Any) -> dict[str, float]:
        state = engine.state
        image, _, (noise,), _ = self.prepare_batch(batchdata, state.device, engine.non_blocking)
        self.network.train()
        step = variational_step if state.epoch <= self.warm_up else introspective_step
        noise = noise.transpose(0, 1)  # (4, B, latent)
        first = (state.iteration - 1) % state.epoch_length == 0
        with torch.autocast(state.device.type, torch.bfloat16, enabled=self.autocast):
            ratios = gradient_ratios(self.network, image, noise, self.weights) if first else {}
            losses = step(self.network, *self.optimizers, image, noise, self.weights)
        state.output = losses | ratios
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return state.output
