"""Panels for print of slices chosen by rule (paper, Figures 1, 4b, 7 and 8)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from pathology_screen.calibration import pixel_threshold
from pathology_screen.errors import ConfigError
from pathology_screen.experiments import pictures
from pathology_screen.experiments.findings import (
    FALSE_POSITIVE_RATE,
    healthy_beside,
    threshold_slices,
)
from pathology_screen.experiments.methods import ExperimentSetting
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.slices import AnnotatedSlices
from pathology_screen.metrics.localization import COVERED, box_scores, count_tagged
from pathology_screen.metrics.pooled import average_precision, pooled_mean


class Case(NamedTuple):
    """A slice that is shown: why, its place, and the findings that count as its class."""

    rank: str
    place: int
    finding: str


def gallery(setting: ExperimentSetting) -> Report:
    """Show slices with findings, input, reconstructions and maps side by side: the best, the median
    and the worst, and the median of each kind of finding, by the AUPRC of the first method's map
    under its first scoring; and how the boxes on the former are evaluated (Figure 7).

    The AUPRC of a slice asks whether its map ranks the pixels of the mask (where the scan has none,
    of the boxes) above all its others.

    Raises:
        ConfigError: if no slice shows a mask or a box, or one shows a box and there is no normal
            slice for the threshold.
    """
    slices = setting.slices
    regions = slices.regions
    shown = regions.flatten(1).any(dim=1)
    if not shown.any():
        raise ConfigError(
            "no slice shows a mask (`label`) or a box: there is nothing to choose the slices by"
        )
    slices, regions = slices[shown.numpy()], regions[shown]
    measurements = Measurements()
    results: pictures.Results = {}
    precision: dict[tuple[str, str], np.ndarray] = {}
    for method in tqdm(setting.compared, desc="gallery", unit="method"):
        for scoring, prediction in method.predict(slices).items():
            key = method.label, scoring
            pairs = zip(regions, prediction.maps)
            values = np.array([average_precision(*pair) for pair in pairs])
            mean = pooled_mean(values, slices.subjects)
            measurements.add(*key, "AUPRC of a slice", mean, len(slices))
            precision.setdefault(key, values)
            results.setdefault(key, (method, prediction))
    first = next(iter(precision))
    extremes, kinds = _choose(slices, precision[first])
    figures = {}
    for name, cases in (("cases", extremes), ("findings", kinds)):
        ranks = [f"{case.rank}: " if cases is extremes else "" for case in cases]
        titles = [rank + case.finding for rank, case in zip(ranks, cases)]
        places = [case.place for case in cases]
        figures[name] = pictures.method_grid(slices, results, places, titles, across=True)
    notes = [
        f"{len(slices)} slices with a mask or box, of {slices.people} people.",
        f"Chosen by the AUPRC of {first[0]} ({first[1]}) on each slice, of the mask or, where "
        "there is none, of the boxes; of several runs the first is shown, and of two slices in the "
        "middle the better.",
        "Maps of one method and scoring share their colours; those of different ones do not "
        "compare.",
    ]
    if boxed := [case for case in extremes if slices.box_labels[case.place]]:
        section, normals = threshold_slices(setting)
        figures["evaluation"] = _evaluation_figure(setting, slices, results, normals, boxed)
        notes.append(
            f"Evaluation ({setting.protocol}) of the largest box of each slice, with the threshold "
            f"that at most 5 % of the pixels of {len(normals)} normal slices of the {section} "
            "section exceed. Tagged pixels: green in the box, magenta in healthy tissue, grey "
            "elsewhere, where they do not count."
        )
    table = pd.DataFrame([*extremes, *kinds], columns=["chosen", "place", "finding"])
    places = table.pop("place")
    table["subject"] = slices.subjects[places]
    for (name, how), values in precision.items():
        table[f"{name} ({how})"] = values[places]
    return setting.report("gallery", "Gallery", measurements, notes, figures, {"cases": table})


def _choose(slices: AnnotatedSlices, precision: np.ndarray) -> tuple[list[Case], list[Case]]:
    """The best, median and worst slice as far as there are, and the median of each finding."""
    ranks = pictures.best_median_worst(precision)
    extremes = [Case(rank, place, slices.pathology[place]) for place, rank in ranks.items()]
    members: dict[str, list[int]] = {}
    for i in (-precision).argsort(kind="stable").tolist():
        for name in set(slices.box_labels[i]) or {slices.pathology[i]}:
            members.setdefault(name, []).append(i)
    middles = {name: pictures.middle(members[name]) for name in sorted(members)}
    return extremes, [Case("median of its kind", i, name) for name, i in middles.items()]


def _evaluation_figure(
    setting: ExperimentSetting,
    slices: AnnotatedSlices,
    results: pictures.Results,
    normals: AnnotatedSlices,
    cases: Sequence[Case],
) -> Figure:
    """A row a slice: from the first method's map to what counts as found and as false."""
    (label, scoring), (method, prediction) = next(iter(results.items()))
    of_normals = method.predict(normals)[scoring].maps.numpy()
    threshold = pixel_threshold(of_normals, FALSE_POSITIVE_RATE)
    maps = pictures.PictureLine.of_maps("map", prediction.maps)
    above = maps.pictures * (maps.pictures > threshold)
    lines = [pictures.PictureLine("input", slices.images)]
    if method.predictor.reconstructs:
        lines.append(pictures.PictureLine("reconstruction", prediction.output))
    lines += [maps, maps._replace(name="above threshold", pictures=above)]
    lines += [pictures.PictureLine(name, slices.images) for name in ("annotation", "tagged")]
    largest = {case.place: int(slices.boxes[case.place].sum(dim=(1, 2)).argmax()) for case in cases}
    healthy = {i: healthy_beside(slices, i) for i in largest}
    titles = []
    for (i, k), case in zip(largest.items(), cases):
        box = slices.boxes[i][[k]].clamp(0, 1)
        found = _verdict(setting, count_tagged(maps.pictures[i], box, healthy[i], threshold))
        titles.append(f"{case.rank}\n{slices.box_labels[i][k]}\n{found}")
    figure, axes = pictures.picture_grid(slices, lines, list(largest), titles, across=True)
    for (i, k), annotation, tagged in zip(largest.items(), *axes[-2:]):
        pictures.outline(annotation, healthy[i][0], "white", 0.6)
        for other, mask in enumerate(torch.cat([slices.boxes[i], slices.other_boxes[i]])):
            if other != k:
                pictures.outline(annotation, mask, pictures.OUTLINES["other box"], 1.2)
        box, hits = slices.boxes[i][k], above[i, 0] > 0
        colours = torch.zeros(*hits.shape, 4)
        colours[hits] = torch.tensor([0.6, 0.6, 0.6, 0.85])  # where they do not count
        colours[hits & (healthy[i][0] > 0)] = torch.tensor([1.0, 0.2, 0.8, 0.85])
        colours[hits & (box > COVERED)] = torch.tensor([0.2, 0.9, 0.3, 0.85])
        tagged.imshow(colours.numpy())
        for axis in (annotation, tagged):
            pictures.outline(axis, box, pictures.OUTLINES["box"], 1.2)
    figure.suptitle(f"{label} ({scoring})", fontsize=10)
    legend = {"evaluated box": "box", "other boxes": "other box"}
    named = {name: pictures.OUTLINES[kind] for name, kind in legend.items()}
    pictures.add_legend(figure, named | {"healthy tissue": "white"})
    return figure


def _verdict(setting: ExperimentSetting, counts: np.ndarray) -> str:
    """Whether the one box is found, and how much is tagged in it and beside it."""
    scores = {name: values[0] for name, values in box_scores(counts, setting.protocol).items()}
    false = scores["false_positives"]  # not defined where nothing in the box is tagged
    return (
        f"{'detected' if scores['detected'] else 'missed'}\n"
        f"tagged: {scores['box_fraction']:.0%} of the box,\n"
        f"{scores['healthy_fraction']:.0%} of healthy tissue\n"
        f"FP {'-' if np.isnan(false) else f'{false:.2g}'}, F1 {scores['f1']:.2f}"
    )
