"""Panels that set methods side by side on the same slices."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from torch import Tensor

from pathology_screen.experiments.slices import Slices

HEIGHT = 1.4
"""Of a picture in inches."""
TISSUE = 0.05
"""Darker pixels do not keep a margin of the slice in the picture."""
OUTLINES = {"mask": "lime", "box": "red", "other box": "yellow"}
"""What is outlined -> its colour."""

Results = Mapping[tuple[str, str], tuple[Tensor | None, Tensor]]
"""(label, scoring) -> predictions that are reconstructions, or None, and maps, both (N, 1, H, W)."""


class Line(NamedTuple):
    """Pictures of all slices, (N, 1, H, W), of one kind: their name, colours, and the value of the
    brightest colour."""

    name: str
    pictures: Tensor
    colours: str
    highest: float


def method_grid(
    slices: Slices,
    results: Results,
    chosen: Sequence[int],
    titles: Sequence[str] = (),
    across: bool = False,
) -> Figure:
    """Draw chosen slices: the input with the outlines of its annotations, then for each method its
    reconstruction and for each scoring its anomaly map.

    Args:
        slices: all slices.
        results: maps of one method and scoring share their colours, up to the 99.5th percentile of
            all pixels.
        chosen: places of the slices that are drawn.
        titles: of the chosen; the names of their findings where there are none.
        across: a row a slice and not a column.
    """
    lines = _lines(slices, results)
    window = Window.around(slices.images[list(chosen)])
    titles = [
        textwrap.fill(title, 20)
        for title in titles or [slices.pathology[place] for place in chosen]
    ]
    names = [line.name for line in lines]
    top, left = (names, titles) if across else (titles, names)
    size = (HEIGHT * window.aspect * len(top) + 1.1, HEIGHT * len(left) + 0.6)
    figure = Figure(
        figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    )
    axes = figure.subplots(len(left), len(top), squeeze=False)
    kinds = set()
    for line, row in zip(lines, axes.T if across else axes):
        for place, axis in zip(chosen, row):
            window.show(axis, line.pictures[place, 0], line.colours, line.highest)
            if line is lines[0]:
                kinds |= outline_annotations(axis, slices, place)
    for axis, name in zip(axes[0], top):
        axis.set_title(name, fontsize=8)
    for axis, name in zip(axes[:, 0], left):
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    add_legend(figure, {kind: colour for kind, colour in OUTLINES.items() if kind in kinds})
    return figure


class Window(NamedTuple):
    """The part of all pictures that is drawn: rows and columns from the first to the last, in
    pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, images: Tensor, margin: int = 4) -> Window:
        """What holds the tissue of images (N, 1, H, W), and a margin."""
        tissue = (images > TISSUE).any(dim=0)[0]
        bounds = []
        for axis, side in ((1, tissue.shape[0]), (0, tissue.shape[1])):
            found = (
                np.flatnonzero(tissue.any(dim=axis).numpy())
                if tissue.any()
                else np.array([0, side - 1])
            )
            bounds += [max(int(found[0]) - margin, 0), min(int(found[-1]) + margin, side - 1)]
        return cls(*bounds)

    @property
    def aspect(self) -> float:
        """Width over height."""
        return (self.right - self.left + 1) / (self.bottom - self.top + 1)

    def show(
        self, axis: Axes, picture: Tensor, colours: str = "gray", highest: float = 1.0
    ) -> None:
        """Draw a picture (H, W), 0 in the darkest colour, without a frame."""
        axis.imshow(picture.numpy(), cmap=colours, vmin=0, vmax=highest)
        axis.set_xlim(self.left - 0.5, self.right + 0.5)
        axis.set_ylim(self.bottom + 0.5, self.top - 0.5)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)


def outline_annotations(axis: Axes, slices: Slices, place: int) -> set[str]:
    """Outline the mask and the boxes of a slice; return which of `OUTLINES` there are."""
    drawn = set()
    for kind, mask in _annotations(slices, place):
        if outline(axis, mask, OUTLINES[kind]):
            drawn.add(kind)
    return drawn


def outline(axis: Axes, mask: Tensor, colour: str, width: float = 0.9) -> bool:
    """Draw the outline of a mask (H, W), soft or not; return whether there is any."""
    if not mask.max() > 0:
        return False
    axis.contour(mask.numpy(), levels=[float(mask.max()) / 2], colors=colour, linewidths=width)
    return True


def add_legend(figure: Figure, colours: Mapping[str, str]) -> None:
    """Name the colours of lines below the pictures."""
    if colours:
        handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=len(handles),
            fontsize=8,
            facecolor="0.6",
        )


def highest_of(maps: Tensor) -> float:
    """Value of the brightest colour of maps: the 99.5th percentile of all their pixels."""
    return float(np.percentile(maps.numpy(), 99.5)) or 1.0


def _lines(slices: Slices, results: Results) -> list[Line]:
    lines = [Line("input", slices.images, "gray", 1.0)]
    for (label, scoring), (reconstructions, maps) in results.items():
        name = f"{label}\nreconstruction"
        if reconstructions is not None and name not in [line.name for line in lines]:
            lines.append(Line(name, reconstructions, "gray", 1.0))
        lines.append(Line(f"{label}\n{scoring}", maps, "inferno", highest_of(maps)))
    return lines


def _annotations(slices: Slices, place: int) -> Iterator[tuple[str, Tensor]]:
    yield from (("box", mask) for mask in slices.boxes[place])
    yield from (("other box", mask) for mask in slices.other_boxes[place])
    yield "mask", slices.masks[place, 0]
