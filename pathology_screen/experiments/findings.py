"""Telling scans with a finding from healthy ones, finding annotated boxes, and what the parts of
Eq. 5 and of the training add (paper, sections 4.2 and 4.3, Tables 2 and 3, Figures 4a, 6 and 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from pathology_screen.calibration import pixel_threshold
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments.methods import SCORINGS, ExperimentSetting
from pathology_screen.experiments.pictures import Results, method_grid
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.slices import NORMAL, AnnotatedSlices
from pathology_screen.metrics import localization as boxes
from pathology_screen.metrics.pooled import averaged, combined, pooled_auroc, pooled_mean

LOCAL = "local"
"""Group of scans with local findings: no part of the paper's average."""
FALSE_POSITIVE_RATE = 0.05
CURVES = {"val_mse": "validation MSE", "val_perceptual_distance": "validation perceptual distance"}


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
    return setting.report("detection", "Detection by the image score", measurements, notes, figures)


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


def localization(setting: ExperimentSetting) -> Report:
    """Compare methods by the annotated boxes that they find, and by what they tag beside them.

    The threshold is the smallest that at most 5 % of the pixels of normal slices exceed: of those
    looked at under the protocols "paper" and "official_code", as in the paper, else of the
    calibration section.

    Raises:
        ConfigError: if no slice has a box, or there is no normal slice for the threshold.
    """
    slices = setting.slices
    boxed = [i for i, labels in enumerate(slices.box_labels) if labels]
    if not boxed:
        raise ConfigError(
            f"no slice shows a box: the {setting.section} section needs `boxes` on the slices that "
            "are looked at"
        )
    slices = slices[boxed]
    labels = np.array([label for names in slices.box_labels for label in names])
    owner = np.repeat(np.arange(len(slices)), [len(names) for names in slices.box_labels])
    classes, first = np.unique(labels, return_index=True)
    tissue = [healthy_beside(slices, i) for i in range(len(slices))]
    outside = sum(len(own) * float(each.sum()) for own, each in zip(slices.boxes, tissue))
    section, normals = threshold_slices(setting)
    measurements, per_class = Measurements(), []
    results: Results = {}
    for method in tqdm(setting.compared, desc="localisation", unit="method"):
        of_normals, of_boxed = method.predict(normals), method.predict(slices)
        for scoring, prediction in of_boxed.items():
            key = (method.label, scoring)
            threshold = pixel_threshold(of_normals[scoring].maps.numpy(), FALSE_POSITIVE_RATE)
            counts = [
                boxes.count_tagged(map_, own.clamp(0, 1), healthy, threshold)
                for map_, own, healthy in zip(prediction.maps, slices.boxes, tissue)
            ]
            scores = boxes.box_scores(np.concatenate(counts), setting.protocol)
            detected, f1, inside, beside = (
                pooled_mean(scores[name], slices.subjects[owner])
                for name in ("detected", "f1", "box_fraction", "healthy_fraction")
            )
            ratio = combined(lambda a, b: a / np.maximum(b, 1 / outside), inside, beside)
            for name, one in (("detected", detected), ("f1", f1), ("fraction ratio", ratio)):
                measurements.add(*key, name, one, len(labels))
            for name in classes:
                own = {part: each[labels == name] for part, each in scores.items()}
                row = {"method": method.label, "scoring": scoring, "class": name}
                per_class.append(row | boxes.box_summary(own) | {"threshold": threshold})
            results.setdefault(key, (method, prediction))
    table = pd.DataFrame(per_class)
    notes = [
        f"{len(labels)} boxes on {len(slices)} slices of {slices.people} people; each box is "
        "scored on its own.",
        f"Protocol {setting.protocol}; threshold from {len(normals)} normal slices of the "
        f"{section} section, of whose pixels at most 5 % exceed it.",
        "detected: more than 10 % of the box is tagged, which a map that tags much of everything "
        "does by chance.",
        "fraction ratio: tagged share of the boxes over that of the tissue outside them; about 1 "
        "is chance. Where nothing outside is tagged, as if a single pixel were.",
    ]
    maps = method_grid(slices, results, list(dict.fromkeys(owner[first].tolist()))[:6])
    figures = {"classes": _class_figure(table), "maps": maps}
    found = measurements, notes, figures, {"classes": table}
    return setting.report("localization", "Localisation of boxes", *found)


def threshold_slices(setting: ExperimentSetting) -> tuple[str, AnnotatedSlices]:
    """The section that the protocol takes its threshold from, and the normal slices of it;
    ConfigError if there is none."""
    own = setting.protocol == "pixel_count"
    section = setting.shared.calibration_section if own else setting.section
    slices = setting.slices_of(section)
    if NORMAL not in slices.groups:
        raise ConfigError(f"the threshold needs normal slices, but the section {section} has none")
    return section, slices[slices.groups == NORMAL]


def healthy_beside(slices: AnnotatedSlices, i: int) -> Tensor:
    """Mask (1, H, W) of the tissue of a slice outside all of its boxes."""
    covered = torch.cat([slices.boxes[i], slices.other_boxes[i]]) > 0
    return torch.from_numpy(boxes.healthy_tissue(slices.images[i, 0].numpy(), covered.numpy()))


def _class_figure(table: pd.DataFrame) -> Figure:
    """Bars: share of the boxes of each class that each method and scoring finds."""
    share = table["detected"] / table["n"]
    table = table.assign(share=share, name=table["method"] + " (" + table["scoring"] + ")")
    wide = table.pivot_table(index="class", columns="name", values="share", sort=False)
    counts = table.drop_duplicates("class")[["class", "n"]].itertuples(index=False, name=None)
    figure = Figure(figsize=(max(6, 1.6 * len(wide)), 4), layout="constrained")
    axis = figure.subplots()
    wide.plot.bar(ax=axis, rot=0, width=0.85, legend=False)
    axis.set(ylabel="share of boxes found", xlabel="", ylim=(0, 1))
    names = [f"{name}\n({of})".replace(" ", "\n") for name, of in counts]
    axis.set_xticks(axis.get_xticks(), names)
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", fontsize=7, ncols=4)
    return figure


def ablation(setting: ExperimentSetting) -> Report:
    """Compare the plain residual, Eq. 5 and the two maps between them (Table 3) by the boxes found
    and, where the section has normal scans too, by detection; where runs are named, draw their
    training curves (Figure 6)."""
    setting = replace(setting, scoring=tuple(SCORINGS))
    found = localization(setting)
    figures = dict(found.figures)
    if NORMAL in setting.slices.groups:
        found.measurements.measured |= detection(setting).measurements.measured
    if logs := [(choice.label, choice.run / "log.csv") for choice in setting.choices if choice.run]:
        figures["training"] = training_curves(logs)
    parts = found.measurements, found.notes, figures, {"classes": found.tables["classes"]}
    return setting.report("ablation", "Ablation of the anomaly map", *parts)


def training_curves(logs: Sequence[tuple[str, Path]]) -> Figure:
    """Draw validation MSE and perceptual distance over the epochs, by label and `log.csv` of each
    training run; runs of one label share their colour. ArtifactError if a run has no log."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = dict(zip(CURVES, figure.subplots(1, len(CURVES))))
    colours = {label: f"C{i}" for i, label in enumerate(dict(logs))}
    for label, path in logs:
        if not path.is_file():
            raise ArtifactError(
                f"{label}: {path.parent.name} has no {path.name}: is it the output_dir of a "
                "training run?"
            )
        log = pd.read_csv(path)
        for name in set(CURVES) & set(log):
            seen = log[log[name].notna()]
            axes[name].plot(seen["epoch"], seen[name], colours[label], label=label, linewidth=1)
    for name, axis in axes.items():
        axis.set_title(CURVES[name], fontsize=10)
        axis.set_xlabel("epoch")
        axis.set_yscale("log")
        named = dict(zip(*reversed(axis.get_legend_handles_labels())))
        axis.legend(named.values(), named, fontsize=7)
    return figure
