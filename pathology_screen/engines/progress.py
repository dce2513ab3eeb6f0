"""Show a run's progress: a bar with the loss, and pictures of what the network paints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from pathology_screen.engines.training_batch import rank_and_world_size
from pathology_screen.engines.training_state import training_values
from pathology_screen.files import replacing


class ProgressBar:
    """Handler that draws one bar over all iterations, with the last loss (rank 0 only)."""

    def attach(self, engine: Engine) -> None:
        self.bar: tqdm | None = None
        if rank_and_world_size()[0] == 0:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.advance)
            engine.add_event_handler(Events.COMPLETED, self.close)

    def advance(self, engine: Engine) -> None:
        state: Any = engine.state
        if self.bar is None:
            total, done = state.max_epochs * state.epoch_length, state.iteration - 1
            self.bar = tqdm(desc="training", total=total, initial=done, unit="it", mininterval=1.0)
        loss = training_values(state.output)["loss"]
        self.bar.set_postfix(epoch=state.epoch, loss=f"{loss:.4f}", refresh=False)
        self.bar.update()

    def close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.close()


@dataclass(eq=False)
class ReconstructionPictures:
    """Handler that writes `pictures/epoch-NNNN.png` below `output_dir`, every `interval` epochs and
    at the end: images, what the network makes of them (a reconstruction, with MKD a map), and
    anomaly maps on one scale, one column each."""

    output_dir: str
    network: nn.Module  # image -> prediction, (B, 1, H, W)
    images: Tensor  # the few to draw, (B, 1, H, W) in [0, 1]
    anomaly_map: Callable[[Tensor, Tensor], Tensor]  # (image, prediction) -> map, (B, 1, H, W)
    interval: int = 5

    def attach(self, engine: Engine) -> None:
        if rank_and_world_size()[0] == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.draw)
            engine.add_event_handler(Events.COMPLETED, self.draw)

    @torch.no_grad()
    def draw(self, engine: Engine) -> None:
        state: Any = engine.state
        self.network.eval()
        images = self.images.to(state.device)
        prediction = self.network(images)
        maps = self.anomaly_map(images, prediction)
        rows = [(images, "gray", 1.0), (prediction, "gray", 1.0)]
        rows += [(maps, "inferno", float(maps.max()) or 1.0)]
        figure = Figure(figsize=(2 * len(images), 6), layout="tight")
        axes = figure.subplots(3, len(images), squeeze=False)
        for row, (pictures, colours, brightest) in zip(axes, rows):
            for axis, picture in zip(row, pictures.cpu()):
                axis.imshow(picture[0], cmap=colours, vmin=0, vmax=brightest)
                axis.axis("off")
        file = Path(self.output_dir, "pictures", f"epoch-{state.epoch:04d}.png")
        with replacing(file) as path:
            figure.savefig(path)
