"""Latent vectors of healthy, pathological and pseudo-healthy slices (paper, Figure 5)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from scipy.spatial.distance import cdist
from tqdm import tqdm

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.methods import ComparedMethod, ExperimentSetting
from pathology_screen.experiments.pictures import middle, show, window_around
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.slices import AnnotatedSlices
from pathology_screen.metrics.pooled import Subjects, combined, pooled_mean

NEIGHBOURS = 5
COLOURS = {"healthy": "#0072b2", "pathological": "#d55e00", "pseudo-healthy": "#009e73"}
"""Group of slices -> its colour."""


class LatentGroup(NamedTuple):
    """Slices of one kind, their latent vectors (N, Z) and mean distances (N,)."""

    slices: AnnotatedSlices
    latents: np.ndarray
    distances: np.ndarray


def latent(setting: ExperimentSetting) -> Report:
    """Compare how far pathological slices, and their pseudo-healthy reconstructions encoded anew,
    lie from healthy ones among the posterior means of a network: the mean Euclidean distance to the
    five nearest healthy slices of the section that show other people. Draw all of them in the plane
    of a UMAP, a panel a method.

    Without any difference the ratio to the healthy is a little below 1, for a healthy slice has one
    person fewer to be near to: 0.96 with 6 healthy people, 0.98 with 8 (simulated, in a test).

    Raises:
        ConfigError: if a method has no latent vector, umap-learn is not installed, or there are too
            few healthy people or none other.
    """
    _import_umap()
    slices = setting.slices
    healthy, pathological = slices[slices.healthy], slices[~slices.healthy]
    measurements = Measurements(dict(zip(slices.subjects, slices.healthy)))
    columns = min(3, len(setting.compared))
    rows = -(-len(setting.compared) // columns)
    figure = Figure(figsize=(4.6 * columns, 5.8 * rows), layout="constrained")
    panels = figure.subfigures(rows, columns, squeeze=False).ravel()
    for method, panel in zip(tqdm(setting.compared, desc="latent", unit="method"), panels):
        groups = compare_latents(method, healthy, pathological)
        means = {}
        for name, each in groups.items():
            means[name] = pooled_mean(each.distances, each.slices.subjects)
            found = f"{name} distance", means[name], len(each.slices)
            measurements.add(method.label, "", *found)
        for name in ("pathological", "pseudo-healthy"):
            ratio = combined(np.divide, means[name], means["healthy"])
            measurements.add(method.label, "", f"{name} / healthy", ratio, len(pathological))
        plane = umap_plane([group.latents for group in groups.values()], setting.seed)
        _draw_panel(panel, method.label, groups, plane)
    notes = [
        f"{len(healthy)} healthy slices of {healthy.people} people, {len(pathological)} "
        f"pathological ones of {pathological.people}.",
        f"distance: mean Euclidean distance of a posterior mean to the {NEIGHBOURS} nearest of "
        "healthy slices of other people. It is in the units of each network's own latent space: "
        "compare methods by the ratios to the healthy.",
        "ratios: no difference is not 1 but, simulated, 0.96 with 6 healthy people and 0.98 with "
        "8, for a healthy slice has one person fewer to be near to.",
        "pseudo-healthy: reconstructions of the pathological slices, clamped to [0, 1] and encoded "
        "again.",
        "Intervals are over people, the healthy neighbours being kept.",
        "A UMAP shows who is near whom; distances between groups, and shapes, mean little. Numbers "
        "mark the nearest, the median and the farthest pathological slice (1, 2, 3), their "
        "reconstructions (1', 2', 3'), and the nearest and the farthest healthy slice (a, b).",
    ]
    return setting.report("latent", "Latent vectors", measurements, notes, {"umap": figure})


def compare_latents(
    method: ComparedMethod, healthy: AnnotatedSlices, pathological: AnnotatedSlices
) -> dict[str, LatentGroup]:
    """Encode the three groups of slices with a method, and measure their distances."""
    references = method.predictor.encode(healthy.images).numpy()
    restored = replace(pathological, images=method.reconstruct(pathological).clamp(0, 1))
    groups = {}
    for name, slices in zip(COLOURS, (healthy, pathological, restored)):
        latents = method.predictor.encode(slices.images).numpy()
        distances = neighbour_distances(latents, slices.subjects, references, healthy.subjects)
        groups[name] = LatentGroup(slices, latents, distances)
    return groups


def neighbour_distances(
    latents: np.ndarray,
    subjects: Subjects,
    references: np.ndarray,
    reference_subjects: Subjects,
    neighbours: int = NEIGHBOURS,
) -> np.ndarray:
    """Mean distance of vectors (N, Z) to the nearest references (M, Z) of others: (N,);
    ConfigError if there are too few."""
    distances = cdist(latents, references)
    distances[np.asarray(subjects)[:, None] == np.asarray(reference_subjects)] = np.inf
    nearest = np.sort(distances, axis=1)[:, :neighbours]
    if nearest.shape[1] < neighbours or not np.isfinite(nearest).all():
        raise ConfigError(
            f"latent needs healthy slices of more people: {neighbours} beside everyone's own"
        )
    return nearest.mean(axis=1)


def umap_plane(groups: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Lay groups of latent vectors, (N_i, Z) each, into one plane: (N_i, 2) each (McInnes et al.,
    2018). The same seed gives the same plane on one machine."""
    together = np.concatenate(groups)
    umap = _import_umap()(n_neighbors=min(15, len(together) - 1), random_state=seed, n_jobs=1)
    return np.split(umap.fit_transform(together), np.cumsum([len(group) for group in groups])[:-1])


def _import_umap() -> type:
    try:
        from umap import UMAP
    except ImportError as error:
        raise ConfigError(
            "the experiment latent needs umap-learn: pip install pathology-screen[plots]"
        ) from error
    return UMAP


def _draw_panel(
    figure: SubFigure, title: str, groups: dict[str, LatentGroup], plane: list[np.ndarray]
) -> None:
    """The plane, and below it a few slices, chosen by their distances and framed in the colour of
    their group."""
    rows: Any = [["plane"] * 4, ["1", "2", "3", "a"], ["1'", "2'", "3'", "b"]]
    axes = figure.subplot_mosaic(rows, height_ratios=[2.6, 1, 1])
    axis = axes["plane"]
    axis.set_title(title, fontsize=10)
    for start, end in zip(plane[1], plane[2]):
        axis.plot(*zip(start, end), color="0.8", linewidth=0.6, zorder=1)
    dots: dict[str, Any] = {"s": 18, "alpha": 0.85, "linewidths": 0, "zorder": 2}
    for (name, colour), places in zip(COLOURS.items(), plane):
        axis.scatter(*places.T, color=colour, label=name, **dots)
    axis.margins(0.1)
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel("UMAP 1", fontsize=7)
    axis.set_ylabel("UMAP 2", fontsize=7)
    axis.legend(fontsize=7, loc="best")
    order = groups["pathological"].distances.argsort(kind="stable").tolist()
    ends = groups["healthy"].distances
    marks = {str(i): place for i, place in enumerate((order[0], middle(order), order[-1]), start=1)}
    shown = [(mark, "pathological", place) for mark, place in marks.items()]
    shown += [(f"{mark}'", "pseudo-healthy", place) for mark, place in marks.items()]
    shown += [("a", "healthy", ends.argmin()), ("b", "healthy", ends.argmax())]
    window = window_around(torch.cat([group.slices.images for group in groups.values()]))
    text: dict[str, Any] = {"textcoords": "offset points", "weight": "bold", "zorder": 3}
    for mark, name, i in shown:
        show(axes[mark], groups[name].slices.images[i, 0], window)
        axes[mark].spines[:].set(visible=True, color=COLOURS[name], linewidth=2)
        axes[mark].set_title(mark, fontsize=8, pad=2)
        axis.annotate(mark, plane[list(COLOURS).index(name)][i], xytext=(3, 3), fontsize=9, **text)
