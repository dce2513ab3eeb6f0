"""A whole training run on a tiny network; also a script, alone or under torchrun:
`tiny_training.py METHOD OUTPUT EPOCHS BATCH [KILL_AT_ITERATION]`."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanSquaredError, ValidationHandler, from_engine
from monai.inferers import SimpleInferer
from torch.optim import Adam

from pathology_screen.engines import (
    AveragedWeights,
    AverageGradients,
    IntrospectiveTrainer,
    SeededBatches,
    TrainingBatch,
    TrainingState,
    improves,
    normal_noise,
    prepare_healthy_map,
    prepare_reconstruction,
)
from pathology_screen.losses import feature_discrepancy, negative_elbo
from pathology_screen.networks.denoising_unet import DenoisingUNet
from pathology_screen.networks.distillation import MultiresolutionDistillation
from pathology_screen.networks.introspective_vae import IntrospectiveVAE
from pathology_screen.networks.spatial_ae import SpatialAutoencoder
from pathology_screen.networks.vae import VAE
from pathology_screen.synthetic import add_coarse_noise, coarse_noise
from pathology_screen.transforms import RandomAffineBatch


def images(count, seed=0, size=16):
    """Smooth random images (1, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator, dtype=torch.float32)
    coarse = coarse.to(torch.get_default_dtype())
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def parts(method, learning_rate, warm_up):
    """Network, optimizers by name, options of `TrainingBatch`, and what makes the trainer."""
    if method == "ra":
        network = IntrospectiveVAE(size=16, channels=(8, 8), latent=4)
        halves = {"encoder": network.encoder, "decoder": network.decoder}
        optimizers = {name: Adam(half.parameters(), learning_rate) for name, half in halves.items()}
        given = {f"{name}_optimizer": optimizer for name, optimizer in optimizers.items()}
        draws = {"noise": partial(normal_noise, shape=(4, 4))}
        return network, optimizers, draws, partial(IntrospectiveTrainer, warm_up=warm_up, **given)

    draws, loss, inferer = {}, torch.nn.L1Loss(), SimpleInferer()
    if method == "ae_s":
        network = SpatialAutoencoder(channels=(8, 8))
    elif method == "vae":
        network, loss = VAE(size=16, channels=(8, 8), latent=4), negative_elbo
        draws = {"noise": partial(normal_noise, shape=(4,))}
        inferer = lambda image, network, noise: network.sample(image, noise)  # noqa: E731
    elif method == "dae":
        network = DenoisingUNet(channels=(4, 8))
        draws = {"noise": partial(coarse_noise, size=16, resolution=4), "corrupt": add_coarse_noise}
    else:
        network = MultiresolutionDistillation("st_vgg16", width=8, norm="group", mse_weight=1e-4)
        loss = lambda features, _: feature_discrepancy(*features, network.mse_weight)  # noqa: E731
        inferer = lambda image, network: network.compare(image)  # noqa: E731
    optimizer = Adam(network.to(torch.get_default_dtype()).parameters(), learning_rate)
    given = {"optimizer": optimizer, "loss_function": loss, "inferer": inferer, "decollate": False}
    return network, {"network": optimizer}, draws, partial(SupervisedTrainer, **given)


def make_trainer(
    output,
    epochs,
    batch,
    *,
    method="ra",
    learning_rate=1e-3,
    warm_up=0,
    amp=False,
    plateau=None,
    val_interval=1,
    **state,
):
    """Return a trainer of 12 images, with validation, checkpoints (after every iteration) and
    augmentation; with `plateau`, the learning rate falls to a tenth after so many epochs without a
    gain. `state` are options of `TrainingState`."""
    torch.manual_seed(0)
    size = 64 if method == "mkd" else 16
    network, optimizers, draws, trainer = parts(method, learning_rate, warm_up)
    averaged, batches, val_handlers = AveragedWeights(network, 0.5), SeededBatches(12, batch, 7), []
    train, validate = (
        Dataset([{"image": one} for one in images(count, seed, size)])
        for count, seed in ((12, 0), (4, 1))
    )
    if plateau is not None:
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizers["network"], factor=0.1, patience=plateau
        )
        metric = lambda engine: engine.state.metrics[engine.state.key_metric_name]  # noqa: E731
        val_handlers = [LrScheduleHandler(schedule, print_lr=False, step_transform=metric)]
        state["schedule"] = schedule
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(validate, batch_size=4),
        network=averaged,
        prepare_batch=prepare_healthy_map if method == "mkd" else prepare_reconstruction,
        key_val_metric={"mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=improves,
        val_handlers=val_handlers,
    )
    options = {"averaged": averaged, "evaluator": evaluator, "warm_up": warm_up, "interval": 0.0}
    handlers = [
        prepare_batch := TrainingBatch(7, RandomAffineBatch(), **draws),
        averaged,
        ValidationHandler(interval=val_interval, validator=evaluator),
        TrainingState(output, network, optimizers, batches, **options, **state),
    ]
    return trainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(train, batch_sampler=batches),
        epoch_length=len(batches),
        network=network,
        prepare_batch=prepare_batch,
        amp=amp,
        train_handlers=handlers if method == "ra" else [AverageGradients(), *handlers],
    )


def train(*arguments, **options):
    """Run what `make_trainer` makes; give the trainer."""
    trainer = make_trainer(*arguments, **options)
    trainer.run()
    return trainer


def weights(trainer):
    """A copy of the weights of its network."""
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        torch.set_default_dtype(torch.float64)
        torch.distributed.init_process_group("gloo")
    method, output, epochs, batch, *kill_at = sys.argv[1:]
    trainer = make_trainer(output, int(epochs), int(batch), method=method)
    if kill_at:
        kill = Events.ITERATION_COMPLETED(once=int(kill_at[0]))
        trainer.add_event_handler(kill, lambda engine: os.kill(os.getpid(), signal.SIGKILL))
    trainer.run()
    if "RANK" in os.environ:
        rank = torch.distributed.get_rank()
        torch.save(trainer.network.state_dict(), Path(output) / f"rank{rank}.pt")
        torch.distributed.destroy_process_group()
