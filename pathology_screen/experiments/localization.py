"""Finding annotated boxes (paper, section 4.2, Table 2b, Figures 4a and 7), and what each part of
Eq. 5 adds to it (section 4.3, Table 3, Figure 6, Appendix D)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from pathology_screen.calibration import pixel_threshold
from pathology_screen.errors import ConfigError
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.models import SCORINGS, ComparedMethod
from pathology_screen.experiments.pictures import method_grid
from pathology_screen.experiments.published import published
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.slices import NORMAL, Slices
from pathology_screen.experiments.training_curves import training_curves
from pathology_screen.metrics import (
    LocalizationMetric,
    box_scores,
    combined,
    healthy_tissue,
    pooled_mean,
)

FALSE_POSITIVE_RATE = 0.05


def localization(setting: Setting) -> Report:
    """Compare methods by the annotated boxes that they find, and by what they tag beside them.

    The threshold is the smallest that at most 5 % of the pixels of normal slices exceed: of the
    test section under the protocols "paper" and "official_code", as in the paper, else of the
    calibration section.

    Raises:
        ConfigError: if no slice has a box, or there is no normal slice for the threshold.
    """
    slices = setting.section("test")
    with_boxes = [i for i, labels in enumerate(slices.box_labels) if labels]
    if not with_boxes:
        raise ConfigError(
            "no slice shows a box: the test section needs `boxes` on the slices that are looked at"
        )
    boxed = slices[with_boxes]
    classes = sorted({label for labels in boxed.box_labels for label in labels})
    targets = [box_target(boxed, i) for i in range(len(boxed))]
    outside = sum(len(target["labels"]) * float(target["healthy"].sum()) for target in targets)
    section, normals = threshold_slices(setting)
    measurements, per_class = Measurements(), []
    drawn: dict[tuple[str, str], tuple[Tensor | None, Tensor]] = {}
    for model in tqdm(setting.models, desc="localisation", unit="method"):
        of_normals, predictions = model.predict(normals), model.predict(boxed)
        for scoring in setting.scorings(model):
            healthy_maps = model.maps(normals, of_normals, scoring)
            threshold = pixel_threshold(healthy_maps.numpy(), FALSE_POSITIVE_RATE)
            maps = model.maps(boxed, predictions, scoring)
            metric = LocalizationMetric(threshold, classes, setting.protocol)
            rows = metric(list(maps), targets)
            _measure(
                measurements, model, scoring, box_scores(rows, setting.protocol), boxed, outside
            )
            for name, found in metric.aggregate()["per_class"].items():
                named = {"method": model.label, "scoring": scoring, "class": name}
                per_class.append({**named, **_plain(found), "threshold": threshold})
            drawn[model.label, scoring] = (predictions if model.method.reconstructs else None, maps)
    table = pd.DataFrame(per_class)
    n = sum(map(len, boxed.box_labels))
    notes = [
        f"{n} boxes on {len(boxed)} slices of {len(set(boxed.subjects))} people; each box is scored on its own.",
        f"Protocol {setting.protocol}; threshold from {len(normals)} normal slices of the {section} section, of whose "
        "pixels at most 5 % exceed it.",
        "detected: more than 10 % of the box is tagged, which a map that tags much of everything does by chance.",
        "fraction ratio: tagged share of the boxes over that of the tissue outside them; about 1 is chance. Where "
        "nothing outside is tagged, as if a single pixel were.",
    ]
    figures = {
        "classes": _class_figure(table),
        "maps": method_grid(boxed, drawn, _first_of_each(boxed, classes)),
    }
    tables = {"classes": table, **published("localization", slices, setting)}
    return Report(
        "localization",
        "Localisation of boxes",
        measurements,
        notes,
        setting.provenance(),
        figures,
        tables,
    )


def ablation(setting: Setting) -> Report:
    """Compare the plain residual, Eq. 5 and the two maps between them (Table 3) by the boxes found
    and, where the test section has normal scans too, by detection; where runs are named, draw their
    training curves (Figure 6)."""
    setting = replace(setting, scoring=tuple(SCORINGS))
    found = localization(setting)
    measurements, figures = found.measurements, dict(found.figures)
    test = setting.section("test")
    if NORMAL in test.groups:
        measurements = measurements.merged(detection(setting).measurements)
    runs = [(choice.label, choice.run) for choice in setting.choices if choice.run is not None]
    if runs:
        figures["training"] = training_curves(runs)
    return replace(
        found,
        name="ablation",
        title="Ablation of the anomaly map",
        measurements=measurements,
        figures=figures,
        tables={"classes": found.tables["classes"], **published("ablation", test, setting)},
    )


def threshold_slices(setting: Setting) -> tuple[str, Slices]:
    """The section that the protocol takes its threshold from, and the normal slices of it.

    Raises:
        ConfigError: if there is none.
    """
    on_test = setting.protocol in ("paper", "official_code")
    section = "test" if on_test else setting.shared.calibration_section
    slices = setting.section(section)
    normal = [i for i, group in enumerate(slices.groups) if group == NORMAL]
    if not normal:
        raise ConfigError(f"the threshold needs normal slices, but the section {section} has none")
    return section, slices[normal]


def box_target(slices: Slices, i: int) -> dict:
    """What `LocalizationMetric` needs to know of a slice."""
    boxes = torch.cat([slices.boxes[i], slices.other_boxes[i]])
    healthy = healthy_tissue(slices.images[i, 0].numpy(), (boxes > 0).numpy())
    return {
        "boxes": slices.boxes[i].clamp(0, 1),
        "healthy": healthy,
        "labels": slices.box_labels[i],
    }


def _measure(
    measurements: Measurements,
    model: ComparedMethod,
    scoring: str,
    scores: dict[str, np.ndarray],
    boxed: Slices,
    outside: float,
) -> None:
    """Note the statistics of all boxes; `outside` is the number of pixels of healthy tissue,
    counted for each box."""
    subjects = [
        subject for subject, labels in zip(boxed.subjects, boxed.box_labels) for _ in labels
    ]
    means = {name: pooled_mean(scores[name].astype(float), subjects) for name in ("detected", "f1")}
    shares = [pooled_mean(scores[f"{where}_fraction"], subjects) for where in ("box", "healthy")]
    means["fraction ratio"] = combined(
        lambda box, healthy: box / np.maximum(healthy, 1 / outside), *shares
    )
    for name, statistic in means.items():
        measurements.add(model.label, scoring, name, statistic, len(subjects))


def _plain(found: dict) -> dict:
    names = (
        "n",
        "detected",
        "f1",
        "false_positives",
        "box_fraction",
        "healthy_fraction",
        "fraction_ratio",
        "empty",
    )
    return {name: found[name] for name in names}


def _first_of_each(slices: Slices, classes: Sequence[str], most: int = 6) -> list[int]:
    """The first slice of each class."""
    first = {
        name: next(i for i, labels in enumerate(slices.box_labels) if name in labels)
        for name in classes
    }
    return list(dict.fromkeys(first.values()))[:most]


def _counts(table: pd.DataFrame) -> list[tuple[str, int]]:
    """Each class and its number of boxes, in the order of the table."""
    return list(table.drop_duplicates("class")[["class", "n"]].itertuples(index=False, name=None))


def _class_figure(table: pd.DataFrame) -> Figure:
    """Bars: share of the boxes of each class that each method and scoring finds."""
    share = table.assign(
        share=table["detected"] / table["n"], name=table["method"] + " (" + table["scoring"] + ")"
    )
    wide = share.pivot_table(index="class", columns="name", values="share", sort=False)
    figure = Figure(figsize=(max(6, 1.6 * len(wide)), 4), layout="constrained")
    axis = figure.subplots()
    wide.plot.bar(ax=axis, rot=0, width=0.85, legend=False)
    axis.set_ylabel("share of boxes found")
    axis.set_xlabel("")
    axis.set_ylim(0, 1)
    axis.set_xticks(
        axis.get_xticks(), [f"{name}\n({of})".replace(" ", "\n") for name, of in _counts(table)]
    )
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside upper center", fontsize=7, ncols=4
    )
    return figure
