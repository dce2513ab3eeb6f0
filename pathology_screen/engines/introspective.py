"""Train the encoder and decoder of RA and SI-VAE against each other (Eq. 2 and 4)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.optim import Optimizer

from pathology_screen.engines.ranks import average_over_ranks
from pathology_screen.engines.training_state import TrainingDiverged
from pathology_screen.errors import ConfigError
from pathology_screen.losses import exp_elbo, kl_divergence, reversed_embedding_loss, squared_error
from pathology_screen.networks.introspective_vae import IntrospectiveVAE


@dataclass(frozen=True)
class IntrospectiveWeights:
    """Weights of the terms of Eq. 2 and 4, with the defaults of the released RA code.

    Attributes:
        beta_rec: weighs the squared error.
        beta_kl: weighs the KL divergence of real images (encoder) and of generated ones (decoder).
        beta_neg: weighs the KL divergence of generated images inside expELBO.
        reversed_embedding: lambda of Eq. 4; 0 gives SI-VAE.
        gamma_rec: weighs the reconstruction of generated images in the decoder's loss; 0 skips its
            two decoder passes.
    """

    beta_rec: float = 0.5
    beta_kl: float = 1.0
    beta_neg: float = 128.0
    reversed_embedding: float = 0.005
    gamma_rec: float = 0.0


def reparameterize(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Return a sample of N(mean, exp(log_variance)) from standard normal noise; all (B, latent)."""
    return mean + torch.exp(0.5 * log_variance) * noise


def update(loss: Tensor, *optimizers: Optimizer, retain_graph: bool = False) -> None:
    """Step the optimizers along the gradient for their parameters, averaged over the ranks.

    Raises:
        TrainingDiverged: if the loss is not finite; no parameter was changed then.
    """
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


def variational_step(
    network: IntrospectiveVAE,
    encoder_optimizer: Optimizer,
    decoder_optimizer: Optimizer,
    image: Tensor,
    noise: Tensor,
    weights: IntrospectiveWeights,
) -> dict[str, float]:
    """Update both halves on -ELBO alone (Eq. 1), as a plain VAE; a quarter of the cost of
    `introspective_step`.

    Arguments and errors are those of `introspective_step`; only the first row of the noise is used.
    """
    mean, log_variance = network.encode(image)
    reconstruction = network.decoder(reparameterize(mean, log_variance, noise[0]))
    error = squared_error(image, reconstruction).mean()
    kl_real = kl_divergence(mean, log_variance).mean()
    loss = (weights.beta_rec * error + weights.beta_kl * kl_real) / image[0].numel()
    update(loss, encoder_optimizer, decoder_optimizer)
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
        weights: weights of the terms.

    Returns:
        Losses, squared error, KL divergences in nats, reversed embedding loss, by name.

    Raises:
        TrainingDiverged: if a loss is not finite.
    """
    decoder, w = network.decoder, weights
    scale = 1.0 / image[0].numel()
    terms = encoder_terms(network, image, noise, w)
    encoder_loss = terms.elbo + terms.repelled + w.reversed_embedding * terms.reverse
    update(encoder_loss, encoder_optimizer, retain_graph=True)

    # decoder: -ELBO(x) + KL(generated), seen by the updated encoder
    posterior_r, posterior_s = network.encode(terms.reconstruction), network.encode(terms.sample)
    kl_generated = 0.5 * (kl_divergence(*posterior_r).mean() + kl_divergence(*posterior_s).mean())
    decoder_loss = scale * (w.beta_rec * terms.error + w.beta_kl * kl_generated)
    if w.gamma_rec:
        z_r = reparameterize(*posterior_r, noise[2]).detach()
        z_s = reparameterize(*posterior_s, noise[3]).detach()
        error_r = squared_error(terms.reconstruction.detach(), decoder(z_r)).mean()
        error_s = squared_error(terms.sample.detach(), decoder(z_s)).mean()
        error_generated = 0.5 * (error_r + error_s)
        decoder_loss = decoder_loss + scale * w.gamma_rec * w.beta_rec * error_generated
    update(decoder_loss, decoder_optimizer)

    values = {
        "loss": encoder_loss + decoder_loss,
        "encoder_loss": encoder_loss,
        "decoder_loss": decoder_loss,
        "squared_error": terms.error,
        "kl_real": terms.kl_real,
        "kl_reconstructed": terms.kl_reconstructed,
        "kl_sampled": terms.kl_sampled,
        "reversed_embedding": terms.reverse,
    }
    return dict(zip(values, torch.stack(list(values.values())).tolist()))


class EncoderTerms(NamedTuple):
    """Terms of the encoder's loss (Eq. 2 and 4), and what they are made of: generated images
    (B, 1, H, W), with graphs to the decoder, of the reconstruction to the encoder too, and means
    over the batch of the squared error (a sum over pixels) and of the KL divergences."""

    reconstruction: Tensor
    sample: Tensor
    error: Tensor
    kl_real: Tensor
    kl_reconstructed: Tensor
    kl_sampled: Tensor
    elbo: Tensor  # -ELBO(x)
    repelled: Tensor  # 1 / alpha exp(alpha ELBO(generated))
    reverse: Tensor  # L_reversed, without its weight


def encoder_terms(
    network: IntrospectiveVAE, image: Tensor, noise: Tensor, weights: IntrospectiveWeights
) -> EncoderTerms:
    """Compute the terms of the encoder's loss; arguments are those of `introspective_step`."""
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
    return EncoderTerms(
        reconstruction, sample, error, kl_real, kl_r.mean(), kl_s.mean(), elbo, repelled, reverse
    )


def gradient_ratios(
    network: IntrospectiveVAE, image: Tensor, noise: Tensor, weights: IntrospectiveWeights
) -> dict[str, float]:
    """Return how large the gradients of other terms are beside the ELBO's (Eq. 2 and 4).

    Arguments are those of `introspective_step`; no parameter is updated.

    Returns:
        Norm of the gradient over that of the ELBO: "gradient_exp_elbo" and "gradient_reversed" for
        the encoder's parameters, "gradient_kl_generated" for the decoder's.
    """
    terms, w = encoder_terms(network, image, noise, weights), weights
    kl_r, kl_s = (
        kl_divergence(*network.encode(generated)).mean()
        for generated in (terms.reconstruction, terms.sample)
    )

    def norm(loss: Tensor, half: nn.Module) -> float:
        if not loss.requires_grad:  # of a term without weight
            return 0.0
        parameters = list(half.parameters())
        parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        squares = [part.square().sum() for part in parts if part is not None]
        return float(torch.stack(squares).sum().sqrt())

    encoder, decoder = network.encoder, network.decoder
    of_elbo, of_error = norm(terms.elbo, encoder), norm(w.beta_rec * terms.error, decoder)
    of_reversed = norm(w.reversed_embedding * terms.reverse, encoder)
    return {
        "gradient_exp_elbo": norm(terms.repelled, encoder) / of_elbo,
        "gradient_reversed": of_reversed / of_elbo,
        "gradient_kl_generated": norm(0.5 * w.beta_kl * (kl_r + kl_s), decoder) / of_error,
    }


class IntrospectiveTrainer(Trainer):
    """Run `introspective_step` on every batch, after a warm-up if wanted; on the first of each
    epoch also measure `gradient_ratios`.

    Args:
        network: an `IntrospectiveVAE` on the device.
        encoder_optimizer, decoder_optimizer: optimizers of its two halves.
        max_epochs: passes over the training set.
        train_data_loader: yields batches without end from `iteration` on (see `SeededBatches`).
        weights: fields of `IntrospectiveWeights`.
        warm_up: epochs of `variational_step` before the first introspective one (paper: none).
        amp: run the network in bfloat16 where autocast deems it safe; losses, gradients and
            weights stay float32. Half precision as wide in range as float32 needs no scaled loss.
        train_handlers: as in MONAI's trainers.
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
