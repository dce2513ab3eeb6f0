"""A bundle's training on a tiny network; also a script, alone or under torchrun:
`tiny_training.py METHOD OUTPUT EPOCHS BATCH [KILL_AT_ITERATION]`."""

import os
import signal
import sys
from pathlib import Path

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import Dataset

from pathology_screen.bundles import bundle_root

TINY = {
    "ra": {
        "network_def#channels": [8, 8],
        "network_def#latent": 4,
        "warm_up": 0,
        "val_interval": 1,
    },
    "ae_s": {"network_def#channels": [8, 8]},
    "vae": {"network_def#channels": [8, 8], "network_def#latent": 4},
    "dae": {"network_def#channels": [4, 8], "train#prepare_batch#noise#resolution": 4},
    "mkd": {"network_def#width": 8, "slice#size": 64},
}
NETWORK = "$torch.nn.Module.to(@network_def, torch.get_default_dtype())"


def images(count, seed=0, size=16):
    """Smooth random images (1, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator, dtype=torch.float32)
    coarse = coarse.to(torch.get_default_dtype())
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def make_trainer(output, epochs, batch, method="ra", **options):
    """Return the trainer of a bundle for 12 images, with validation and checkpoints after every
    iteration, but without pictures; `options` are keys of its `train.json`."""
    torch.manual_seed(0)
    config = ConfigParser()
    config.read_config(str(bundle_root(method) / "configs" / "train.json"))
    own = {"output_dir": str(output), "max_epochs": epochs, "batch_size": batch, "network": NETWORK}
    own |= {"seed": 7, "averaging": 0.5, "learning_rate": 1e-3, "slice#size": 16, "train#data": []}
    own |= {"device": torch.device("cpu"), "validate#additional_metrics": None}
    own |= {key: config[key][:2] for key in ("train#handlers", "validate#handlers")}
    config.update(own | {"train#handlers#1#interval": 0.0} | TINY[method] | options)
    for section, count, seed in (("train", 12, 0), ("validate", 4, 1)):
        items = [{"image": image} for image in images(count, seed, config["slice#size"])]
        config[f"{section}#dataset"] = Dataset(items)
    return config.get_parsed_content("train#trainer")


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
