"""Train the encoder and decoder of RA and SI-VAE against each other (Eq. 2 and 4), on MONAI's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from monai.engines import Trainer
from monai.engines.utils import IterationEvents, default_prepare_batch
from torch import Tensor
from torch import distributed as dist
from torch.optim import Optimizer

from pathology_screen.engines.random import rank_and_world_size, seeded_generator
from pathology_screen.errors import ScreeningError
from pathology_screen.losses import exp_elbo, kl_divergence, reversed_similarity, squared_error
from pathology_screen.networks.introspective_vae import IntrospectiveVAE
from pathology_screen.transforms import RandomAffineBatch


class TrainingDiverged(ScreeningError):
    """A loss or a weight is NaN or infinite; the last good checkpoint is kept."""


@dataclass(frozen=True)
class IntrospectiveWeights:
    """Weights of the terms of Eq. 2 and 4, with the defaults of the released RA code.

    Attributes:
        beta_rec: of the squared error.
        beta_kl: of the KL divergence of real images (encoder) and of generated ones (decoder).
        beta_neg: of the KL divergence of generated images inside expELBO.
        reversed_similarity: lambda of Eq. 4; 0 gives SI-VAE.
        gamma_rec: of the reconstruction of generated images in the decoder's loss; 0 skips its two decoder passes.
    """

    beta_rec: float = 0.5
    beta_kl: float = 1.0
    beta_neg: float = 128.0
    reversed_similarity: float = 0.005
    gamma_rec: float = 0.0


@dataclass(frozen=True)
class Step:
    """What one step measured; every field is a scalar."""

    encoder_loss: float
    decoder_loss: float
    squared_error: float
    kl_real: float
    kl_reconstructed: float
    kl_sampled: float
    reversed_similarity: float


def reparameterize(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Return a sample of N(mean, exp(log_variance)) made of standard normal noise; all (B, latent)."""
    return mean + torch.exp(0.5 * log_variance) * noise


def update(parameters: Sequence[Tensor], loss: Tensor, optimizer: Optimizer, retain_graph: bool = False) -> None:
    """Step the optimizer along the gradient of the loss with respect to its parameters alone, averaged over the ranks.

    Raises:
        TrainingDiverged: if the loss is not finite; nothing was changed then.
    """
    if not torch.isfinite(loss):
        raise TrainingDiverged(f"the loss is {loss.item()}; lower the learning rate or beta_neg, then resume")
    gradients = torch.autograd.grad(loss, parameters, retain_graph=retain_graph)
    world_size = rank_and_world_size()[1]
    for parameter, gradient in zip(parameters, gradients):
        if world_size > 1:
            dist.all_reduce(gradient)
            gradient /= world_size
        parameter.grad = gradient
    optimizer.step()


def introspective_step(
    network: IntrospectiveVAE,
    encoder_optimizer: Optimizer,
    decoder_optimizer: Optimizer,
    image: Tensor,
    noise: Tensor,
    weights: IntrospectiveWeights,
) -> Step:
    """Update the encoder, then the decoder, on one batch.

    Gradients are asked for the encoder's or the decoder's parameters alone, so the other half is frozen without
    being told, and the decoder's
    two outputs, whose weights do not change in between, serve both updates.

    Args:
        image: (B, 1, H, W) in [0, 1].
        noise: (4, B, latent) standard normal: for z of the image, the sampled latent, z of the
            reconstruction, z of the sample.
        weights: of the terms.

    Raises:
        TrainingDiverged: if a loss is not finite.
    """
    encoder, decoder, w = network.encoder, network.decoder, weights
    scale = 1.0 / image[0].numel()

    # encoder: -ELBO(x) + 1/alpha exp(alpha ELBO(generated)) + lambda L_reversed
    mean, log_variance, embeddings = encoder(image)
    z = reparameterize(mean, log_variance, noise[0])
    reconstruction = decoder(z)  # (B, 1, H, W), with graphs to the encoder and to the decoder
    sample = decoder(noise[1])
    mean_r, log_variance_r, embeddings_r = encoder(reconstruction.detach())
    mean_s, log_variance_s, _ = encoder(sample.detach())
    z_r = reparameterize(mean_r, log_variance_r, noise[2])
    z_s = reparameterize(mean_s, log_variance_s, noise[3])
    error_r = squared_error(reconstruction, decoder(z_r))
    error_s = squared_error(sample.detach(), decoder(z_s))
    error = squared_error(image, reconstruction).mean()
    kl_real = kl_divergence(mean, log_variance).mean()
    kl_r, kl_s = kl_divergence(mean_r, log_variance_r), kl_divergence(mean_s, log_variance_s)
    repelled = 0.25 * (
        exp_elbo(error_r, kl_r, w.beta_rec, w.beta_neg, scale).mean()
        + exp_elbo(error_s, kl_s, w.beta_rec, w.beta_neg, scale).mean()
    )
    similarity = reversed_similarity(embeddings, embeddings_r) if w.reversed_similarity else image.new_zeros(())
    encoder_loss = scale * (w.beta_rec * error + w.beta_kl * kl_real) + repelled + w.reversed_similarity * similarity
    update(list(encoder.parameters()), encoder_loss, encoder_optimizer, retain_graph=True)

    # decoder: -ELBO(x) + KL(generated), seen by the updated encoder
    mean_r, log_variance_r, _ = encoder(reconstruction)
    mean_s, log_variance_s, _ = encoder(sample)
    kl_generated = 0.5 * (kl_divergence(mean_r, log_variance_r).mean() + kl_divergence(mean_s, log_variance_s).mean())
    decoder_loss = scale * (w.beta_rec * error + w.beta_kl * kl_generated)
    if w.gamma_rec:
        z_r = reparameterize(mean_r, log_variance_r, noise[2]).detach()
        z_s = reparameterize(mean_s, log_variance_s, noise[3]).detach()
        error_generated = 0.5 * (
            squared_error(reconstruction.detach(), decoder(z_r)).mean()
            + squared_error(sample.detach(), decoder(z_s)).mean()
        )
        decoder_loss = decoder_loss + scale * w.gamma_rec * w.beta_rec * error_generated
    update(list(decoder.parameters()), decoder_loss, decoder_optimizer)

    values = torch.stack([encoder_loss, decoder_loss, error, kl_real, kl_r.mean(), kl_s.mean(), similarity])
    return Step(*values.tolist())


class IntrospectiveTrainer(Trainer):
    """Run `introspective_step` on augmented batches; every draw depends on the seed and the iteration alone.

    Args:
        device: where the network is.
        max_epochs: passes over the training set.
        train_data_loader: yields batches without end from `iteration` on (see `SeededBatches`).
        epoch_length: batches an epoch.
        network: an `IntrospectiveVAE` on the device.
        encoder_optimizer, decoder_optimizer: of `network.encoder` and `network.decoder`.
        weights: of the loss terms, `IntrospectiveWeights` or its fields.
        augmentation: of whole batches, such as `transforms.RandomAffineBatch`; None for none.
        seed: of noise and augmentation.
        train_handlers, prepare_batch: as in MONAI's trainers.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable,
        epoch_length: int,
        network: IntrospectiveVAE,
        encoder_optimizer: Optimizer,
        decoder_optimizer: Optimizer,
        weights: IntrospectiveWeights | dict[str, float] | None = None,
        augmentation: RandomAffineBatch | None = None,
        seed: int = 0,
        train_handlers: Sequence | None = None,
        prepare_batch: Callable = default_prepare_batch,
    ) -> None:
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            prepare_batch=prepare_batch,
            handlers=train_handlers,
            decollate=False,
        )
        self.network = network.to(memory_format=torch.channels_last)
        self.encoder_optimizer, self.decoder_optimizer = encoder_optimizer, decoder_optimizer
        self.weights = (
            IntrospectiveWeights(**weights) if isinstance(weights, dict) else weights or IntrospectiveWeights()
        )
        self.augmentation, self.seed = augmentation, seed

    def _iteration(self, engine: Any, batchdata: Any) -> dict[str, float]:
        image, _ = self.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        noise, image = self.draw(engine.state.iteration, image)
        self.network.train()
        step = introspective_step(
            self.network, self.encoder_optimizer, self.decoder_optimizer, image, noise, self.weights
        )
        engine.state.output = asdict(step) | {"loss": step.encoder_loss + step.decoder_loss}
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def draw(self, iteration: int, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return this rank's part of the iteration's noise, (4, B, latent), and its batch, augmented and
        channels-last."""
        rank, world_size = rank_and_world_size()
        count = len(image)
        part = slice(rank * count, (rank + 1) * count)
        generator = seeded_generator(self.seed, 1, iteration)
        noise = torch.randn(4, count * world_size, self.network.latent, generator=generator)[:, part].to(image)
        if self.augmentation is not None:
            parameters = self.augmentation.draw(count * world_size, seeded_generator(self.seed, 2, iteration))
            image = self.augmentation.apply(image, parameters[part])
        return noise, image.contiguous(memory_format=torch.channels_last)
