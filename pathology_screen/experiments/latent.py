"""Latent vectors of healthy slices, pathological ones and their pseudo-healthy reconstructions
(paper, section 4.3, Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from scipy.spatial.distance import cdist
from torch import Tensor
from tqdm import tqdm

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.models import ComparedMethod
from pathology_screen.experiments.pictures import Window
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.slices import HEALTHY, Slices
from pathology_screen.metrics import combined, pooled_mean

NEIGHBOURS = 5
COLOURS = {"healthy": "#0072b2", "pathological": "#d55e00", "pseudo-healthy": "#009e73"}
"""Group of slices -> its colour."""


class Group(NamedTuple):
    """Slices (N, 1, H, W) of one kind, their people, latent vectors (N, Z), and mean distances to
    healthy ones (N,)."""

    images: Tensor
    subjects: Sequence[str]
    latents: np.ndarray
    distances: np.ndarray


def latent(setting: Setting) -> Report:
    """Compare how far pathological slices, and their pseudo-healthy reconstructions encoded anew,
    lie from healthy ones
    among the posterior means of a network: the mean Euclidean distance to the five nearest healthy
    slices of the test section that show other people. Draw all of them in the plane of a UMAP, a
    panel a method.

    Raises:
        ConfigError: if a method has no latent vector, umap-learn is not installed, or there are too
            few healthy people or none other.
    """
    _import_umap()
    slices = setting.section("test")
    healthy = slices.healthy()
    pathological = slices[[i for i, name in enumerate(slices.pathology) if name != HEALTHY]]
    measurements = Measurements(
        {subject: name == HEALTHY for subject, name in zip(slices.subjects, slices.pathology)}
    )
    panels = []
    for model in tqdm(setting.models, desc="latent", unit="method"):
        groups = compare_latents(model, healthy, pathological)
        _measure(model, groups, measurements)
        panels.append(
            (
                model.label,
                groups,
                umap_plane([group.latents for group in groups.values()], setting.seed),
            )
        )
    notes = [
        f"{len(healthy)} healthy slices of {len(set(healthy.subjects))} people, {len(pathological)} pathological ones "
        f"of {len(set(pathological.subjects))}.",
        f"distance: mean Euclidean distance of a posterior mean to the {NEIGHBOURS} nearest of healthy slices of other "
        "people. It is in the units of each network's own latent space: compare methods by the ratios to the healthy.",
        "pseudo-healthy: reconstructions of the pathological slices, clamped to [0, 1] and encoded again.",
        "Intervals are over people, the healthy neighbours being kept.",
        "A UMAP shows who is near whom; distances between groups, and shapes, mean little. Numbers mark the nearest, "
        "the median and the farthest pathological slice (1, 2, 3), their reconstructions (1', 2', 3'), and the nearest "
        "and the farthest healthy slice (a, b).",
    ]
    figures = {"umap": _umap_figure(panels)}
    return Report("latent", "Latent vectors", measurements, notes, setting.provenance(), figures)


def compare_latents(
    model: ComparedMethod, healthy: Slices, pathological: Slices
) -> dict[str, Group]:
    """Encode the three groups of slices with a model, and measure their distances.

    Raises:
        ConfigError: if the method has no latent vector, or there are too few healthy people.
    """
    references = model.encode(healthy.images).numpy()
    images = {
        "healthy": healthy.images,
        "pathological": pathological.images,
        "pseudo-healthy": model.predict(pathological).clamp(0, 1),
    }
    groups = {}
    for name, pictures in images.items():
        subjects = healthy.subjects if name == "healthy" else pathological.subjects
        latents = model.encode(pictures).numpy()
        distances = neighbour_distances(latents, subjects, references, healthy.subjects)
        groups[name] = Group(pictures, subjects, latents, distances)
    return groups


def neighbour_distances(
    latents: np.ndarray,
    subjects: Sequence[str],
    references: np.ndarray,
    reference_subjects: Sequence[str],
    neighbours: int = NEIGHBOURS,
) -> np.ndarray:
    """Mean Euclidean distance of latent vectors (N, Z) to the nearest of references (M, Z) of other
    people: (N,).

    Raises:
        ConfigError: if there are too few references.
    """
    distances = cdist(latents, references)
    distances[np.asarray(subjects)[:, None] == np.asarray(reference_subjects)] = np.inf
    nearest = np.sort(distances, axis=1)[:, :neighbours]
    if nearest.shape[1] < neighbours or not np.isfinite(nearest).all():
        raise ConfigError(
            f"the test section needs healthy slices of more people: {neighbours} beside everyone's own"
        )
    return nearest.mean(axis=1)


def umap_plane(groups: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Lay groups of latent vectors, (N_i, Z) each, into one plane: (N_i, 2) each (McInnes et al.,
    2018).

    The same seed gives the same plane on one machine.

    Raises:
        ConfigError: if umap-learn is not installed.
    """
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


def _measure(model: ComparedMethod, groups: dict[str, Group], measurements: Measurements) -> None:
    means = {name: pooled_mean(group.distances, group.subjects) for name, group in groups.items()}
    for name, mean in means.items():
        measurements.add(model.label, "", f"{name} distance", mean, len(groups[name].distances))
    for name in ("pathological", "pseudo-healthy"):
        ratio = combined(np.divide, means[name], means["healthy"])
        measurements.add(model.label, "", f"{name} / healthy", ratio, len(groups[name].distances))


Panel = tuple[str, dict[str, Group], list[np.ndarray]]
"""Title, the groups, and the place of each of their slices in the plane."""


def _umap_figure(panels: Sequence[Panel]) -> Figure:
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 5.8 * rows), layout="constrained")
    for part, panel in zip(figure.subfigures(rows, columns, squeeze=False).ravel(), panels):
        _draw_panel(part, panel)
    return figure


def _draw_panel(figure: SubFigure, panel: Panel) -> None:
    """The plane, and below it a few slices: framed in the colour of their group, and marked in the
    plane."""
    title, groups, plane = panel
    axes = figure.subplot_mosaic(
        [["plane"] * 4, ["1", "2", "3", "a"], ["1'", "2'", "3'", "b"]], height_ratios=[2.6, 1, 1]
    )
    axis = axes["plane"]
    axis.set_title(title, fontsize=10)
    for start, end in zip(plane[1], plane[2]):
        axis.plot(*zip(start, end), color="0.8", linewidth=0.6, zorder=1)
    for (name, colour), places in zip(COLOURS.items(), plane):
        axis.scatter(
            places[:, 0],
            places[:, 1],
            s=18,
            color=colour,
            label=name,
            alpha=0.85,
            linewidths=0,
            zorder=2,
        )
    axis.margins(0.1)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel("UMAP 1", fontsize=7)
    axis.set_ylabel("UMAP 2", fontsize=7)
    axis.legend(fontsize=7, loc="best")
    window = Window.around(torch.cat([group.images for group in groups.values()]))
    for mark, (name, i) in _examples(groups).items():
        window.show(axes[mark], groups[name].images[i, 0])
        axes[mark].spines[:].set(visible=True, color=COLOURS[name], linewidth=2)
        axes[mark].set_title(mark, fontsize=8, pad=2)
        place = plane[list(COLOURS).index(name)][i]
        axis.annotate(
            mark,
            place,
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=9,
            weight="bold",
            zorder=3,
        )


def _examples(groups: dict[str, Group]) -> dict[str, tuple[str, int]]:
    """Mark -> group and place of the slices that are shown: by their distances to the healthy ones,
    not by taste."""
    order = groups["pathological"].distances.argsort(kind="stable")
    chosen = [int(order[0]), int(order[(len(order) - 1) // 2]), int(order[-1])]
    marks = {str(i): ("pathological", place) for i, place in enumerate(chosen, start=1)}
    marks |= {f"{mark}'": ("pseudo-healthy", place) for mark, (_, place) in marks.items()}
    distances = groups["healthy"].distances
    return marks | {
        "a": ("healthy", int(distances.argmin())),
        "b": ("healthy", int(distances.argmax())),
    }
