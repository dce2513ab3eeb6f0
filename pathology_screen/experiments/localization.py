"""Finding annotated boxes (paper, section 4.2, Table 2b, Figures 4a and 7)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from pathology_screen.calibration import pixel_threshold
from pathology_screen.errors import ConfigError
from pathology_screen.experiments.methods import ExperimentSetting
from pathology_screen.experiments.pictures import Results, method_grid
from pathology_screen.experiments.published import published
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.slices import NORMAL, AnnotatedSlices
from pathology_screen.metrics import localization as boxes
from pathology_screen.metrics.pooled import combined, pooled_mean
from pathology_screen.predictor import Prediction

FALSE_POSITIVE_RATE = 0.05


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
    subjects = np.repeat(slices.subjects, [len(names) for names in slices.box_labels])
    tissue = [healthy_beside(slices, i) for i in range(len(slices))]
    outside = sum(len(own) * float(each.sum()) for own, each in zip(slices.boxes, tissue))
    section, normals = threshold_slices(setting)
    measurements, per_class = Measurements(), []
    results: Results = {}
    for method in tqdm(setting.compared, desc="localisation", unit="method"):
        of_normals, of_boxed = method.predict(normals), method.predict(slices)
        for scoring, prediction in of_boxed.items():
            key = (method.label, scoring)
            threshold = normal_threshold(of_normals[scoring])
            counts = [
                boxes.count_tagged(map_, own.clamp(0, 1), healthy, threshold)
                for map_, own, healthy in zip(prediction.maps, slices.boxes, tissue)
            ]
            scores = boxes.box_scores(np.concatenate(counts), setting.protocol)
            detected, f1, inside, beside = (
                pooled_mean(scores[name].astype(float), subjects)
                for name in ("detected", "f1", "box_fraction", "healthy_fraction")
            )
            ratio = combined(lambda a, b: a / np.maximum(b, 1 / outside), inside, beside)
            for name, one in (("detected", detected), ("f1", f1), ("fraction ratio", ratio)):
                measurements.add(*key, name, one, len(labels))
            for name in np.unique(labels):
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
    figures = {
        "classes": _class_figure(table),
        "maps": method_grid(slices, results, _first_of_each(slices, np.unique(labels))),
    }
    tables = {"classes": table, **published("localization", setting)}
    title = "Localisation of boxes"
    return Report("localization", title, measurements, notes, setting.provenance(), figures, tables)


def threshold_slices(setting: ExperimentSetting) -> tuple[str, AnnotatedSlices]:
    """The section that the protocol takes its threshold from, and the normal slices of it;
    ConfigError if there is none."""
    own = setting.protocol == "pixel_count"
    section = setting.shared.calibration_section if own else setting.section
    slices = setting.slices_of(section)
    if NORMAL not in slices.groups:
        raise ConfigError(f"the threshold needs normal slices, but the section {section} has none")
    return section, slices[slices.groups == NORMAL]


def normal_threshold(prediction: Prediction) -> float:
    """The smallest threshold that at most 5 % of the pixels of the maps of slices exceed."""
    return pixel_threshold(prediction.maps.numpy(), FALSE_POSITIVE_RATE)


def healthy_beside(slices: AnnotatedSlices, i: int) -> Tensor:
    """Mask (1, H, W) of the tissue of a slice outside all of its boxes."""
    covered = torch.cat([slices.boxes[i], slices.other_boxes[i]]) > 0
    return torch.from_numpy(boxes.healthy_tissue(slices.images[i, 0].numpy(), covered.numpy()))


def _first_of_each(slices: AnnotatedSlices, classes: Iterable[str], most: int = 6) -> list[int]:
    """The first slice of each class."""
    shows = [[name in labels for labels in slices.box_labels] for name in classes]
    return list(dict.fromkeys(shown.index(True) for shown in shows))[:most]


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
