"""Telling scans with a finding from healthy ones by the image score (paper, Table 2a)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.methods import ExperimentSetting
from pathology_screen.experiments.published import published
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.slices import NORMAL
from pathology_screen.metrics.pooled import averaged, pooled_auroc

LOCAL = "local"
"""Group of scans with local findings: no part of the paper's average."""


def detection(setting: ExperimentSetting) -> Report:
    """Compare methods by the AUROC of each group of pathological scans against the normal ones, and
    the mean of these AUROCs but that of local findings.

    A person belongs to one group; of several scans of a person each counts on its own, and the
    intervals keep them together.

    Raises:
        ConfigError: if normal scans or all others lack, or a person is in two groups.
    """
    slices = setting.slices
    groups = [name for name in dict.fromkeys(slices.groups) if name != NORMAL]
    if NORMAL not in slices.groups or not groups:
        raise ConfigError(
            f"detection needs scans with a finding and normal ones in the {setting.section} section"
        )
    group_of: dict[str, str] = {}
    for subject, group in zip(slices.subjects, slices.groups):
        if group_of.setdefault(subject, group) != group:
            raise ConfigError(f"{subject} is in the groups {group_of[subject]} and {group}")
    measurements = Measurements(group_of)
    scores: dict[str, np.ndarray] = {}
    for method in tqdm(setting.compared, desc="detection", unit="method"):
        for scoring, prediction in method.predict(slices).items():
            found = prediction.scores.numpy()
            scores.setdefault(f"{method.label}\n{scoring}", found)
            parts = []
            for group in groups:
                chosen = np.isin(slices.groups, (NORMAL, group))
                labels = slices.groups[chosen] == group
                auroc = pooled_auroc(labels, found[chosen], slices.subjects[chosen])
                measurements.add(method.label, scoring, f"{group} AUROC", auroc, len(labels))
                if group != LOCAL:
                    parts.append(auroc)
            if len(parts) > 1:
                n = int((slices.groups != LOCAL).sum())
                measurements.add(method.label, scoring, "average AUROC", averaged(*parts), n)
    named = [NORMAL, *groups]
    counts = ", ".join(f"{np.count_nonzero(slices.groups == name)} {name}" for name in named)
    notes = [
        f"Slices: {counts}; {slices.people} people.",
        "Intervals are 95 % bootstrap intervals over people, each group kept in size; with few "
        "people too narrow.",
    ]
    figures = {"scores": _score_figure(slices.groups, named, scores)}
    tables = published("detection", setting)
    title = "Detection by the image score"
    return Report("detection", title, measurements, notes, setting.provenance(), figures, tables)


def _score_figure(
    group_of: np.ndarray, groups: Sequence[str], scores: Mapping[str, np.ndarray]
) -> Figure:
    """One panel a method and scoring: the scores of each group, a dot a slice."""
    columns = min(4, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in panels[len(scores) :]:
        axis.axis("off")
    rng = np.random.default_rng(0)
    names = [group.replace("_", "\n") for group in groups]
    for axis, (title, values) in zip(panels, scores.items()):
        for position, group in enumerate(groups):
            own = values[group_of == group]
            places = position + rng.uniform(-0.15, 0.15, len(own))
            axis.plot(places, own, "o", markersize=3, alpha=0.7)
        axis.set_xticks(range(len(groups)), names, fontsize=7)
        axis.set_title(title, fontsize=8)
        axis.tick_params(axis="y", labelsize=7)
    return figure
