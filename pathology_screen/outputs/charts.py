"""Where the marks of a chart lie, in the units of its SVG; `pages/charts.html` draws them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 440, 160
LEFT, RIGHT, TOP, BOTTOM = 12, WIDTH - 12, 34, 118
BINS = 24


class Axis:
    """A linear axis around `values`, from a round number at `start` to one at `stop`; with `whole`,
    of whole numbers alone. Its `ticks` are places and texts."""

    def __init__(
        self, values: Sequence[float], start: float, stop: float, *, whole: bool = False
    ) -> None:
        low, high = float(min(values)), float(max(values))
        largest = max(abs(low), abs(high))
        if high - low <= 1e-4 * largest or largest < 1e-9:  # a single value, nearly
            low, high = low - 0.05 * (largest or 1), high + 0.05 * (largest or 1)
        rounded = MaxNLocator(5, integer=whole, min_n_ticks=2).tick_values(low, high)
        self.low, self.high = float(rounded[0]), float(rounded[-1])
        self.start, self.stop = start, stop
        step = float(rounded[1] - rounded[0])
        marks = [self.low + i * step for i in range(len(rounded))]
        self.ticks = [(self.at(mark), f"{mark:.6g}".replace("-", "−")) for mark in marks]

    def at(self, value: float) -> float:
        """The place of a value, to a tenth of a unit."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)


def histogram(
    values: Sequence[float], kinds: Sequence[str], around: Sequence[float] = ()
) -> dict[str, Any]:
    """Count the values of each kind in bins of equal width, one kind upon the other; the axis
    `across` holds `around` too."""
    across = Axis([*values, *around], LEFT + 34, RIGHT - 12)
    edges = np.linspace(across.low, across.high, BINS + 1)
    names, rows = np.unique(kinds, return_inverse=True)
    inside = np.clip(values, across.low, across.high)  # a tick may lie a rounding below its value
    counts = [np.histogram(inside[rows == i], edges)[0] for i in range(len(names))]
    tops = np.cumsum(counts, axis=0)
    up = Axis([0, int(tops[-1].max())], BOTTOM, TOP, whole=True)
    bars = []
    for kind, own, top in zip(names.tolist(), counts, tops):
        for i in np.flatnonzero(own):
            left, right = across.at(edges[i]), across.at(edges[i + 1])
            low, high = up.at(top[i] - own[i]), up.at(top[i])
            size = {"width": round(right - left, 1), "height": round(low - high, 1)}
            bars.append({"x": left, "y": high, **size, "kind": kind, "number": int(own[i])})
    return {"across": across, "up": up, "bars": bars, "width": WIDTH, "height": HEIGHT}
