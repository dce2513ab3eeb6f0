"""Time what is fast here beside another way to the same result, in turn; print a table of medians.

python benchmarks/pairs.py [NAME ...] [--repeats 5]

The other way is the literal definition in the tests, or this code with an option that does not pay.
CPU time of one thread is measured: wall time says little where other work shares the cores.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from literal import literal_map, literal_step, released_box, released_threshold

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.calibration import pixel_threshold
from pathology_screen.engines.introspective import (
    IntrospectiveWeights,
    introspective_step,
    variational_step,
)
from pathology_screen.metrics.localization import box_scores, count_tagged
from pathology_screen.networks.introspective_vae import IntrospectiveVAE

SMALL = {"channels": (8, 16), "size": 32, "latent": 8, "batch": 2, "norm": "group"}
COMPACT = {"channels": (16, 32, 64, 128, 128), "size": 128, "latent": 32, "batch": 8}
COMPACT["norm"] = "group"
PAPER = {"channels": (64, 128, 256, 512, 512), "size": 128, "latent": 128, "batch": 8}
PAPER["norm"] = "batch"


class Pair(NamedTuple):
    """Two ways to the same numbers.

    Attributes:
        ours, other: functions that return them.
        tolerance: greatest absolute difference between the numbers of the first call.
        what: what the other one is.
    """

    ours: Callable[[], Sequence[float]]
    other: Callable[[], Sequence[float]]
    tolerance: float
    what: str

    def difference(self) -> float:
        """Call both: the greatest absolute difference."""
        found = (np.asarray(way(), float) for way in (self.ours, self.other))
        return float(np.abs(np.subtract(*found)).max())


def trained(given: dict, step: Callable, weights: IntrospectiveWeights, **options) -> Callable:
    """A function that makes one training step of a new network, and returns its losses."""
    torch.manual_seed(0)
    shape = {name: given[name] for name in ("channels", "size", "latent", "norm")}
    network = IntrospectiveVAE(**shape).to(memory_format=options.get("layout"))
    image = torch.rand(given["batch"], 1, given["size"], given["size"])
    image = image.contiguous(memory_format=options.get("layout", torch.contiguous_format))
    noise = torch.randn(4, given["batch"], given["latent"])
    halves = [torch.optim.Adam(half.parameters(), 5e-5) for half in network.children()]
    if options.get("compiled"):
        network.encoder.compile()
        network.decoder.compile()

    def losses() -> Sequence[float]:
        with torch.autocast("cpu", torch.bfloat16, enabled=options.get("bfloat16", False)):
            found = step(network, *halves, image, noise, weights)
        if isinstance(found, dict):
            return [value for name, value in found.items() if name.endswith("coder_loss")] or [
                found["loss"]
            ]
        return [loss.item() for loss in found]

    return losses


def step_pair(small: bool) -> Pair:
    given, layout = SMALL if small else PAPER, {"layout": torch.channels_last}
    ours = trained(given, introspective_step, IntrospectiveWeights(), **layout)
    literal = trained(given, literal_step, IntrospectiveWeights(gamma_rec=1e-8))
    return Pair(ours, literal, 1e-3, "the literal step, paper's width")


def option_pair(step: Callable, option: str, small: bool) -> Pair:
    given, weights = SMALL if small else COMPACT, IntrospectiveWeights()
    ours, other = trained(given, step, weights), trained(given, step, weights, **{option: True})
    return Pair(ours, other, 0.05, f"{option}, compact width")


def map_pair(backbone: str, small: bool) -> Pair:
    size, count = (48, 2) if small else (128, 32)
    generator = torch.Generator().manual_seed(0)
    shape = (count, 1, size, size)
    images, painted = (torch.rand(shape, generator=generator) for _ in range(2))
    anomaly_map = AnomalyMap(backbone)
    metric = copy.deepcopy(anomaly_map.perceptual.metric).to(memory_format=torch.contiguous_format)

    def literal() -> np.ndarray:
        pairs = zip(images.split(1), painted.split(1))
        return np.stack([literal_map(*pair, metric) for pair in pairs])[:, None]

    what = f"{count} maps one by one"
    return Pair(lambda: anomaly_map(images, painted).numpy(), literal, 1e-6, what)


def healthy_maps(small: bool) -> np.ndarray:
    shape = (4, 16, 16) if small else (1000, 128, 128)
    return np.random.default_rng(0).gamma(2.0, 0.02, shape).astype(np.float32)


def threshold_pair(small: bool) -> Pair:
    maps = healthy_maps(small)
    what = f"the released grid of thresholds, {len(maps):,} maps"
    step = 1e-3  # of the grid
    return Pair(
        lambda: [pixel_threshold(maps, 0.05)], lambda: [released_threshold(maps)], step, what
    )


def boxes_pair(small: bool) -> Pair:
    maps = healthy_maps(small)
    boxes = np.zeros((3, *maps.shape[1:]), np.float32)
    for box, place in zip(boxes, (1, 5, 9)):
        box[place : place + 4, place : place + 4] = 1
    healthy = (boxes.sum(0) == 0).astype(np.float32)
    masks, tissue = torch.from_numpy(boxes), torch.from_numpy(healthy)[None]

    def ours() -> np.ndarray:
        counted = [count_tagged(one[None], masks, tissue, 0.1) for one in torch.from_numpy(maps)]
        return box_scores(np.concatenate(counted), "official_code")["f1"]

    def released() -> list[float]:
        return [released_box(one, box, healthy, 0.1)[-1] for one in maps for box in boxes]

    return Pair(ours, released, 1e-6, f"the released code, {len(maps):,} maps of 3 boxes")


PAIRS: dict[str, Callable[[bool], Pair]] = {
    "training step": step_pair,
    "training step in float32": partial(option_pair, introspective_step, "bfloat16"),
    "warm-up step, not compiled": partial(option_pair, variational_step, "compiled"),
    "anomaly maps, ST-LPIPS": partial(map_pair, "st_alex"),
    "anomaly maps, LPIPS": partial(map_pair, "squeeze"),
    "pixel threshold": threshold_pair,
    "box metrics": boxes_pair,
}
"""Name -> function that makes the pair, a small one for tests."""


def timed(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def rows(names: Sequence[str], repeats: int) -> list[str]:
    """Markdown rows: name, the other way, CPU seconds of both, median of the ratios, difference."""
    torch.set_num_threads(1)
    found = []
    for name in names:
        pair = PAIRS[name](False)
        difference = pair.difference()
        spent = [[timed(pair.ours), timed(pair.other)] for _ in range(repeats)]
        ours, other = (statistics.median(column) for column in zip(*spent))
        ratio = statistics.median(other / ours for ours, other in spent)
        numbers = f"{ours:.3g}|{other:.3g}|{ratio:.2f}|{difference:.1g}"
        found.append(f"|{name}|{pair.what}|{numbers}|")
        print(found[-1], flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(PAIRS))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    rows(options.names, options.repeats)


if __name__ == "__main__":
    main()
