"""Panels that set methods side by side on the same slices."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from torch import Tensor

from pathology_screen.experiments.methods import ComparedMethod
from pathology_screen.experiments.slices import AnnotatedSlices
from pathology_screen.predictor import Prediction

HEIGHT = 1.4
"""Of a picture in inches."""
TISSUE, MARGIN = 0.05, 4
"""The picture shows what is brighter, and so many pixels around."""
OUTLINES = {"mask": "lime", "box": "red", "other box": "yellow"}
"""What is outlined -> its colour."""

Results = dict[tuple[str, str], tuple[ComparedMethod, Prediction]]
"""(label, scoring) -> the method and what it made of all slices."""


class PictureLine(NamedTuple):
    """Pictures of all slices, (N, 1, H, W): name, colours, value of the brightest colour."""

    name: str
    pictures: Tensor
    colours: str = "gray"
    highest: float = 1.0

    @classmethod
    def of_maps(cls, name: str, maps: Tensor) -> "PictureLine":
        """Anomaly maps, which share their colours up to the 99.5th percentile of all pixels."""
        return cls(name, maps, "inferno", float(np.percentile(maps.numpy(), 99.5)) or 1.0)


def middle(ordered: Sequence[int]) -> int:
    """The place in the middle of some in order; of two the former."""
    return ordered[(len(ordered) - 1) // 2]


def best_median_worst(values: np.ndarray) -> dict[int, str]:
    """Places of the highest, the middle and the lowest of values, each once -> "best", "median" or
    "worst"; of two in the middle the higher counts."""
    order = (-values).argsort(kind="stable").tolist()
    once: dict[int, str] = {}
    for rank, place in (("best", order[0]), ("median", middle(order)), ("worst", order[-1])):
        once.setdefault(place, rank)
    return once


def method_grid(
    slices: AnnotatedSlices,
    results: Results,
    chosen: Sequence[int],
    titles: Sequence[str] = (),
    across: bool = False,
) -> Figure:
    """Draw the slices at the chosen places: the input with the outlines of its annotations, then
    for each method its reconstruction and for each scoring its anomaly map. Their titles are the
    names of their findings where there are no others; `across` draws a row a slice, not a column.
    """
    lines = [PictureLine("input", slices.images)]
    for (label, scoring), (method, prediction) in results.items():
        name = f"{label}\nreconstruction"
        if method.predictor.reconstructs and name not in [line.name for line in lines]:
            lines.append(PictureLine(name, prediction.output))
        lines.append(PictureLine.of_maps(f"{label}\n{scoring}", prediction.maps))
    named = [textwrap.fill(title, 20) for title in titles or slices.pathology[list(chosen)]]
    figure, axes = picture_grid(slices, lines, chosen, named, across)
    outline_annotations(figure, axes[:1], slices, chosen)
    return figure


def picture_grid(
    slices: AnnotatedSlices,
    lines: Sequence[PictureLine],
    chosen: Sequence[int],
    titles: Sequence[str],
    across: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Draw pictures of chosen slices; return the figure and the axes of each line and slice."""
    window = window_around(slices.images[list(chosen)])
    names = [line.name for line in lines]
    top, left = (names, titles) if across else (titles, names)
    aspect = (window[3] - window[2] + 1) / (window[1] - window[0] + 1)
    size = (HEIGHT * aspect * len(top) + 1.1, HEIGHT * len(left) + 0.6)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=size, layout=layout)
    axes = figure.subplots(len(left), len(top), squeeze=False)
    by_line = axes.T if across else axes
    for line, row in zip(lines, by_line):
        for place, axis in zip(chosen, row):
            show(axis, line.pictures[place, 0], window, line.colours, line.highest)
    for axis, name in zip(axes[0], top):
        axis.set_title(name, fontsize=8)
    for axis, name in zip(axes[:, 0], left):
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return figure, by_line


def window_around(images: Tensor) -> list[int]:
    """First and last row and column of what holds the tissue of images (N, 1, H, W), and a
    margin."""
    tissue = (images > TISSUE).any(dim=0)[0].numpy()
    bounds = []
    for axis, side in ((1, tissue.shape[0]), (0, tissue.shape[1])):
        found = np.flatnonzero(tissue.any(axis=axis)) if tissue.any() else [0, side - 1]
        bounds += [max(int(found[0]) - MARGIN, 0), min(int(found[-1]) + MARGIN, side - 1)]
    return bounds


def show(
    axis: Axes, picture: Tensor, window: list[int], colours: str = "gray", highest: float = 1.0
) -> None:
    """Draw a picture (H, W), 0 in the darkest colour, in a window, without a frame."""
    top, bottom, left, right = window
    axis.imshow(picture.numpy(), cmap=colours, vmin=0, vmax=highest)
    axis.set(xlim=(left - 0.5, right + 0.5), ylim=(bottom + 0.5, top - 0.5), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def outline_annotations(
    figure: Figure, rows: Iterable[Sequence[Axes]], slices: AnnotatedSlices, chosen: Sequence[int]
) -> None:
    """Outline the masks and boxes of chosen slices in rows of their pictures, and name the
    colours."""
    found = set()
    for row in rows:
        for axis, place in zip(row, chosen):
            kinds = zip(("box", "other box"), (slices.boxes[place], slices.other_boxes[place]))
            for kind, masks in (*kinds, ("mask", slices.masks[place])):
                found |= {kind for mask in masks if outline(axis, mask, OUTLINES[kind])}
    add_legend(figure, {kind: colour for kind, colour in OUTLINES.items() if kind in found})


def outline(axis: Axes, mask: Tensor, colour: str, width: float = 0.9) -> bool:
    """Draw the outline of a mask (H, W), soft or not; return whether there is any."""
    highest = float(mask.max())
    if highest > 0:
        axis.contour(mask.numpy(), levels=[highest / 2], colors=colour, linewidths=width)
    return highest > 0


def add_legend(figure: Figure, colours: Mapping[str, str]) -> None:
    """Name the colours of lines below the pictures."""
    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    if handles:
        style = {"ncols": len(handles), "fontsize": 8, "facecolor": "0.6"}
        figure.legend(handles=handles, loc="outside lower center", **style)
