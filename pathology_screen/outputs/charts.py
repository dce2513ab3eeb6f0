"""Where the marks of a chart lie, in the units of its SVG; `pages/charts.html` draws them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

WIDTH = 440
LEFT, RIGHT, TOP, BOTTOM = 12, WIDTH - 12, 34, 118
BINS = 24


class Tick(NamedTuple):
    """A mark on an axis."""

    at: float
    text: str


class Axis(NamedTuple):
    """A linear axis from the value `low` at `start` to the value `high` at `stop`."""

    low: float
    high: float
    start: float
    stop: float
    step: float

    @classmethod
    def around(
        cls, values: Sequence[float], start: float, stop: float, *, whole: bool = False
    ) -> "Axis":
        """An axis around the values, from round number to round number (`whole` numbers alone)."""
        low, high = float(min(values)), float(max(values))
        largest = max(abs(low), abs(high))
        if high - low <= 1e-4 * largest or largest < 1e-9:  # a single value, nearly
            low, high = low - 0.05 * (largest or 1), high + 0.05 * (largest or 1)
        ticks = MaxNLocator(5, integer=whole, min_n_ticks=2).tick_values(low, high)
        return cls(float(ticks[0]), float(ticks[-1]), start, stop, float(ticks[1] - ticks[0]))

    def at(self, value: float) -> float:
        """The place of a value, to a tenth of a unit."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    @property
    def ticks(self) -> list[Tick]:
        count = round((self.high - self.low) / self.step) + 1
        values = [self.low + i * self.step for i in range(count)]
        return [Tick(self.at(value), f"{value:.6g}".replace("-", "−")) for value in values]


class Bar(NamedTuple):
    """A rectangle of a histogram: so many values of a kind."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    number: int


class Histogram(NamedTuple):
    """Values by kind, one kind upon the other."""

    across: Axis
    up: Axis
    bars: list[Bar]
    width: float = WIDTH
    height: float = 160


def histogram(
    values: Sequence[float], kinds: Sequence[str], around: Sequence[float] = ()
) -> Histogram:
    """Count the values of each kind in bins of equal width; the axis holds `around` too."""
    across = Axis.around([*values, *around], LEFT + 34, RIGHT - 12)
    edges = np.linspace(across.low, across.high, BINS + 1)
    names, rows = np.unique(kinds, return_inverse=True)
    inside = np.clip(values, across.low, across.high)  # a tick may lie a rounding below its value
    counts = [np.histogram(inside[rows == i], edges)[0] for i in range(len(names))]
    tops = np.cumsum(counts, axis=0)
    up = Axis.around([0, int(tops[-1].max())], BOTTOM, TOP, whole=True)
    bars = []
    for kind, own, top in zip(names.tolist(), counts, tops):
        for i in np.flatnonzero(own):
            left, right = across.at(edges[i]), across.at(edges[i + 1])
            low, high = up.at(top[i] - own[i]), up.at(top[i])
            width, height = round(right - left, 1), round(low - high, 1)
            bars.append(Bar(left, high, width, height, kind, int(own[i])))
    return Histogram(across, up, bars)
