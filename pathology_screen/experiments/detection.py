"""Telling scans with a finding from healthy ones by the image score alone (paper, section 4.2,
Table 2a)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.models import ComparedMethod
from pathology_screen.experiments.published import published
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.slices import NORMAL, Slices
from pathology_screen.metrics import combined, pooled_auroc

LOCAL = "local"
"""Group of scans with local findings: no part of the paper's average."""


def detection(setting: Setting) -> Report:
    """Compare methods by the AUROC of each group of pathological test scans against the normal
    ones, and the mean of these AUROCs but that of local findings.

    A person belongs to one group; of several scans of a person each counts on its own, and the
    intervals keep them together.

    Raises:
        ConfigError: if the test section has no normal scan, or nothing else, or a person is in two
            groups.
    """
    slices = setting.section("test")
    groups = [name for name in dict.fromkeys(slices.groups) if name != NORMAL]
    if NORMAL not in slices.groups or not groups:
        raise ConfigError(
            "detection needs scans with a finding and normal ones in the test section"
        )
    group_of: dict[str, str] = {}
    for subject, group in zip(slices.subjects, slices.groups):
        if group_of.setdefault(subject, group) != group:
            raise ConfigError(f"{subject} is in the groups {group_of[subject]} and {group}")
    measurements = Measurements(group_of)
    scores: dict[str, np.ndarray] = {}
    for model in tqdm(setting.models, desc="detection", unit="method"):
        predictions = model.predict(slices)
        for scoring in setting.scorings(model):
            found = _scores(model, slices, predictions, scoring)
            scores.setdefault(f"{model.label}\n{scoring}", found)
            parts = []
            for group in groups:
                places = [i for i, name in enumerate(slices.groups) if name in (NORMAL, group)]
                labels = np.array([slices.groups[i] == group for i in places])
                statistic = pooled_auroc(
                    labels, found[places], [slices.subjects[i] for i in places]
                )
                measurements.add(model.label, scoring, f"{group} AUROC", statistic, len(places))
                if group != LOCAL:
                    parts.append(statistic)
            if len(parts) > 1:
                mean = combined(lambda *values: np.mean(values, axis=0), *parts)
                n = len(slices) - slices.groups.count(LOCAL)
                measurements.add(model.label, scoring, "average AUROC", mean, n)
    counts = ", ".join(f"{slices.groups.count(name)} {name}" for name in (NORMAL, *groups))
    notes = [
        f"Slices: {counts}; {len(set(slices.subjects))} people.",
        "Intervals are 95 % bootstrap intervals over people, each group kept in size; with few people too narrow.",
    ]
    figures = {"scores": _score_figure(slices, [NORMAL, *groups], scores)}
    tables = published("detection", slices, setting)
    return Report(
        "detection",
        "Detection by the image score",
        measurements,
        notes,
        setting.provenance(),
        figures,
        tables,
    )


def _scores(model: ComparedMethod, slices: Slices, predictions: Tensor, scoring: str) -> np.ndarray:
    return model.scores(slices, model.maps(slices, predictions, scoring), scoring).numpy()


def _score_figure(slices: Slices, groups: list[str], scores: dict[str, np.ndarray]) -> Figure:
    """One panel a method and scoring: the scores of each group, a dot a slice."""
    columns = min(4, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in panels[len(scores) :]:
        axis.axis("off")
    rng = np.random.default_rng(0)
    for axis, (name, values) in zip(panels, scores.items()):
        for position, group in enumerate(groups):
            mine = values[[i for i, other in enumerate(slices.groups) if other == group]]
            axis.plot(
                position + rng.uniform(-0.15, 0.15, len(mine)), mine, "o", markersize=3, alpha=0.7
            )
        axis.set_xticks(
            range(len(groups)), [group.replace("_", "\n") for group in groups], fontsize=7
        )
        axis.set_title(name, fontsize=8)
        axis.tick_params(axis="y", labelsize=7)
    return figure
