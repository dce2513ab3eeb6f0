"""Panels that set methods side by side on the same slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from pathology_screen.experiments.slices import Slices

WIDTH = 1.3
"""Of a picture in inches."""


def method_grid(
    slices: Slices, results: Mapping[tuple[str, str], tuple[Tensor | None, Tensor]], chosen: Sequence[int]
) -> Figure:
    """Draw chosen slices, a column each: the input with the outline of the annotation, then for each method its
    reconstruction and for each scoring its anomaly map.

    Args:
        slices: all slices.
        results: (label, scoring) -> predictions that are reconstructions, or None, and maps, both (N, 1, H, W). Maps of
            one row share their colours, up to the 99.5th percentile of all its pixels.
        chosen: places of the slices that are drawn.
    """
    rows: list[tuple[str, Tensor, str, float]] = [("input", slices.images, "gray", 1.0)]
    seen = set()
    for (label, scoring), (reconstructions, maps) in results.items():
        if reconstructions is not None and label not in seen:
            rows.append((label, reconstructions, "gray", 1.0))
            seen.add(label)
        rows.append((f"{label}\n{scoring}", maps, "inferno", float(np.percentile(maps.numpy(), 99.5)) or 1.0))
    figure = Figure(figsize=(WIDTH * (len(chosen) + 0.9), WIDTH * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(chosen), squeeze=False)
    for row, (name, pictures, colours, highest) in zip(axes, rows):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for axis, place in zip(row, chosen):
            axis.imshow(pictures[place, 0].numpy(), cmap=colours, vmin=0, vmax=highest)
            if slices.masks[place].max() > 0.5 and name == "input":
                axis.contour(slices.masks[place, 0].numpy(), levels=[0.5], colors="lime", linewidths=0.8)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
    for axis, place in zip(axes[0], chosen):
        axis.set_title(slices.pathology[place], fontsize=8)
    return figure
