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
    coarse = torch.rand(
        count, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float32
    )
    coarse = coarse.to(torch.get_default_dtype())
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def introspective(learning_rate, warm_up):
    """Network, optimizers, noise and a function that makes the trainer, of RA."""
    network = IntrospectiveVAE(size=16, channels=(8, 8), latent=4)
    optimizers = {
        "encoder": torch.optim.Adam(network.encoder.parameters(), lr=learning_rate),
        "decoder": torch.optim.Adam(network.decoder.parameters(), lr=learning_rate),
    }

    def trainer(**options):
        return IntrospectiveTrainer(
            encoder_optimizer=optimizers["encoder"],
            decoder_optimizer=optimizers["decoder"],
            warm_up=warm_up,
            **options,
        )

    return network, optimizers, {"noise": partial(normal_noise, shape=(4, 4))}, trainer


def supervised(method, learning_rate):
    """The same of a method that MONAI's SupervisedTrainer trains."""
    draws, calls = {}, {"loss_function": torch.nn.L1Loss(), "inferer": SimpleInferer()}
    if method == "ae_s":
        network = SpatialAutoencoder(channels=(8, 8))
    elif method == "vae":
        network = VAE(size=16, channels=(8, 8), latent=4)
        draws = {"noise": partial(normal_noise, shape=(4,))}
        calls = {
            "loss_function": negative_elbo,
            "inferer": lambda image, network, noise: network.sample(image, noise),
        }
    elif method == "dae":
        network = DenoisingUNet(channels=(4, 8))
        draws = {"noise": partial(coarse_noise, size=16, resolution=4), "corrupt": add_coarse_noise}
    else:
        network = MultiresolutionDistillation("st_vgg16", width=8, norm="group", mse_weight=1e-4)
        calls = {
            "loss_function": lambda features, _: feature_discrepancy(*features, network.mse_weight),
            "inferer": lambda image, network: network.compare(image),
        }
    network = network.to(torch.get_default_dtype())
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)

    def trainer(train_handlers, **options):
        handlers = [AverageGradients(), *train_handlers]
        return SupervisedTrainer(
            optimizer=optimizer, decollate=False, train_handlers=handlers, **calls, **options
        )

    return network, {"network": optimizer}, draws, trainer


def make_trainer(
    output,
    epochs,
    batch,
    *,
    method="ra",
    patience=None,
    interval=0.0,
    learning_rate=1e-3,
    samples=12,
    warm_up=0,
    identity=None,
    plateau=None,
    decay=0.5,
    val_interval=1,
):
    """Return a trainer of 12 images, with validation, checkpoints (after every iteration by
    default) and augmentation; with `plateau`, the learning rate falls to a tenth after so many
    epochs without a gain."""
    torch.manual_seed(0)
    size = 64 if method == "mkd" else 16
    make = (
        introspective(learning_rate, warm_up)
        if method == "ra"
        else supervised(method, learning_rate)
    )
    network, optimizers, draws, trainer = make
    averaged = AveragedWeights(network, decay)
    dataset = Dataset([{"image": image} for image in images(samples, size=size)])
    batches = SeededBatches(len(dataset), batch, seed=7)
    schedule, val_handlers = None, None
    if plateau is not None:
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizers["network"], factor=0.1, patience=plateau
        )
        follow = LrScheduleHandler(
            schedule,
            print_lr=False,
            step_transform=lambda engine: engine.state.metrics[engine.state.key_metric_name],
        )
        val_handlers = [follow]
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(
            Dataset([{"image": image} for image in images(4, seed=1, size=size)]), batch_size=4
        ),
        network=averaged,
        prepare_batch=prepare_healthy_map if method == "mkd" else prepare_reconstruction,
        key_val_metric={"mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=improves,
        val_handlers=val_handlers,
    )
    state = TrainingState(
        output,
        network,
        optimizers,
        batches,
        averaged,
        evaluator,
        schedule=schedule,
        patience=patience,
        warm_up=warm_up,
        interval=interval,
        identity=identity,
    )
    prepare_batch = TrainingBatch(7, RandomAffineBatch(), **draws)
    return trainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(dataset, batch_sampler=batches, num_workers=0),
        epoch_length=len(batches),
        network=network,
        prepare_batch=prepare_batch,
        train_handlers=[
            prepare_batch,
            averaged,
            ValidationHandler(interval=val_interval, validator=evaluator),
            state,
        ],
    )


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
        torch.save(
            trainer.network.state_dict(), Path(output) / f"rank{torch.distributed.get_rank()}.pt"
        )
        torch.distributed.destroy_process_group()
