"""A whole training run on a tiny network; also a script: `tiny_training.py OUTPUT EPOCHS BATCH [KILL_AT_ITERATION]`,
alone or under torchrun."""

import os
import signal
import sys
from pathlib import Path

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanSquaredError, ValidationHandler, from_engine

from pathology_screen.engines import (
    IntrospectiveTrainer,
    SeededBatches,
    TrainingState,
    improves,
    prepare_reconstruction,
)
from pathology_screen.networks.introspective_vae import IntrospectiveVAE
from pathology_screen.transforms import RandomAffineBatch


def images(count, seed=0):
    """Smooth random images (1, 16, 16) in [0, 1]."""
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    coarse = coarse.to(torch.get_default_dtype())
    return torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")


def make_trainer(
    output, epochs, batch, *, patience=None, interval=0.0, learning_rate=1e-3, samples=12, warm_up=0, identity=None
):
    """Return a trainer of 12 images, with validation, checkpoints (after every iteration by default) and
    augmentation."""
    torch.manual_seed(0)
    network = IntrospectiveVAE(size=16, channels=(8, 8), latent=4)
    dataset = Dataset([{"image": image} for image in images(samples)])
    batches = SeededBatches(len(dataset), batch, seed=7)
    encoder_optimizer = torch.optim.Adam(network.encoder.parameters(), lr=learning_rate)
    decoder_optimizer = torch.optim.Adam(network.decoder.parameters(), lr=learning_rate)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Dataset([{"image": image} for image in images(4, seed=1)]), batch_size=4),
        network=network,
        prepare_batch=prepare_reconstruction,
        key_val_metric={"mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=improves,
    )
    state = TrainingState(
        output,
        network,
        {"encoder": encoder_optimizer, "decoder": decoder_optimizer},
        batches,
        evaluator,
        patience=patience,
        warm_up=warm_up,
        interval=interval,
        identity=identity,
    )
    return IntrospectiveTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(dataset, batch_sampler=batches, num_workers=0),
        epoch_length=len(batches),
        network=network,
        encoder_optimizer=encoder_optimizer,
        decoder_optimizer=decoder_optimizer,
        warm_up=warm_up,
        augmentation=RandomAffineBatch(),
        seed=7,
        train_handlers=[ValidationHandler(interval=1, validator=evaluator), state],
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        torch.set_default_dtype(torch.float64)
        torch.distributed.init_process_group("gloo")
    trainer = make_trainer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    if len(sys.argv) > 4:
        kill = Events.ITERATION_COMPLETED(once=int(sys.argv[4]))
        trainer.add_event_handler(kill, lambda engine: os.kill(os.getpid(), signal.SIGKILL))
    trainer.run()
    if "RANK" in os.environ:
        torch.save(trainer.network.state_dict(), Path(sys.argv[1]) / f"rank{torch.distributed.get_rank()}.pt")
        torch.distributed.destroy_process_group()
