import numpy as np
import torch
from ignite.engine import Engine
from PIL import Image
from torch import nn

from pathology_screen.engines import ProgressBar, ReconstructionPictures


def run(handler, epochs):
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(0.25), "pictures": batch})
    engine.state.device = "cpu"
    handler.attach(engine)
    engine.run([torch.zeros(2)] * 3, max_epochs=epochs)


def test_the_bar_counts_all_iterations_and_tells_the_loss():
    bar = ProgressBar()
    run(bar, 2)
    assert bar.bar.n == bar.bar.total == 6
    assert "epoch=2" in bar.bar.postfix and "loss=0.2500" in bar.bar.postfix


def test_pictures_are_drawn_at_each_interval_and_at_the_end(tmp_path):
    """A column an image: it, its reconstruction, and the map, whose brightest pixel is white."""
    images = torch.zeros(2, 1, 8, 8)
    images[0, 0, 2:4, 2:4] = 1
    network = nn.Sequential(nn.Identity(), nn.Dropout(1.0)).train()  # which evaluation leaves out
    run(ReconstructionPictures(str(tmp_path), network, images, torch.add, interval=2), 5)
    files = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert files == [f"epoch-{epoch:04d}.png" for epoch in (2, 4, 5)]
    drawn = np.asarray(Image.open(tmp_path / "pictures/epoch-0005.png").convert("L"))
    cells = [row for part in np.array_split(drawn, 3) for row in np.array_split(part, 2, axis=1)]
    assert [bool((cell[40:-40, 40:-40] > 200).any()) for cell in cells] == [True, False] * 3
