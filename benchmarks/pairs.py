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

SMALL = {"channels": (8, 16), "size": 32, "latent": 8, "norm": "group"}
COMPACT = {"channels": (16, 32, 64, 128, 128), "size": 128, "latent": 32, "norm": "group"}
PAPER = {"channels": (64, 128, 256, 512, 512), "size": 128, "latent": 128, "norm": "batch"}
"""Networks: for tests, of the shipped weights, of the paper."""
BATCH = 8


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


def trained(
    given: dict,
    step: Callable,
    weights: IntrospectiveWeights,
    bfloat16: bool = False,
    compiled: bool = False,
) -> Callable:
    """A function that makes one training step of a new network, and returns its losses."""
    torch.manual_seed(0)
    network = IntrospectiveVAE(**given).to(memory_format=torch.channels_last)
    image = torch.rand(BATCH, 1, given["size"], given["size"])
    noise = torch.randn(4, BATCH, given["latent"])
    halves = [torch.optim.Adam(half.parameters(), 5e-5) for half in network.children()]
    if compiled:
        network.encoder.compile()
        network.decoder.compile()

    def losses() -> Sequence[float]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            found = step(network, *halves, image, noise, weights)
        if isinstance(found, dict):
            found = [value for name, value in found.items() if name.endswith("loss")][-2:]
        return [float(loss) for loss in found]

    return losses


def step_pair(small: bool) -> Pair:
    given = SMALL if small else PAPER
    ours = trained(given, introspective_step, IntrospectiveWeights())
    literal = trained(given, literal_step, IntrospectiveWeights(gamma_rec=1e-8))
    return Pair(ours, literal, 1e-3, "the literal step, paper's width")


def bfloat16_pair(small: bool) -> Pair:
    given, weights = SMALL if small else PAPER, IntrospectiveWeights()
    half, full = (trained(given, introspective_step, weights, bfloat16=on) for on in (True, False))
    return Pair(half, full, 0.01, "in float32, paper's width")


def compiled_pair(small: bool) -> Pair:
    given, weights = SMALL if small else COMPACT, IntrospectiveWeights()
    ours, other = (trained(given, variational_step, weights, compiled=on) for on in (False, True))
    return Pair(ours, other, 1e-6, "compiled, compact width")


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


def metrics_pair(small: bool) -> Pair:
    shape = (4, 16, 16) if small else (1000, 128, 128)
    maps = np.random.default_rng(0).gamma(2.0, 0.02, shape).astype(np.float32)
    boxes = np.zeros((3, *shape[1:]), np.float32)
    for box, place in zip(boxes, (1, 5, 9)):
        box[place : place + 4, place : place + 4] = 1
    healthy = (boxes.sum(0) == 0).astype(np.float32)
    masks, tissue, fixed = torch.from_numpy(boxes), torch.from_numpy(healthy)[None], 0.1

    def ours() -> list[float]:
        counted = [count_tagged(one[None], masks, tissue, fixed) for one in torch.from_numpy(maps)]
        f1 = box_scores(np.concatenate(counted), "official_code")["f1"]
        return [pixel_threshold(maps, 0.05), *f1]

    def released() -> list[float]:
        f1 = [released_box(one, box, healthy, fixed)[-1] for one in maps for box in boxes]
        return [released_threshold(maps), *f1]

    what = f"the released code, {len(maps):,} maps of 3 boxes"
    return Pair(ours, released, 1e-3, what)  # the step of its grid of thresholds


PAIRS: dict[str, Callable[[bool], Pair]] = {
    "training step": step_pair,
    "training step in bfloat16": bfloat16_pair,
    "warm-up step": compiled_pair,
    "anomaly maps, ST-LPIPS": partial(map_pair, "st_alex"),
    "anomaly maps, LPIPS": partial(map_pair, "squeeze"),
    "threshold and box metrics": metrics_pair,
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
