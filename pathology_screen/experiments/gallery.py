"""Panels for print: slices chosen by rule, and what each method makes of them (paper, Figures 1,
4b, 7 and 8)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from pathology_screen.calibration import pixel_threshold
from pathology_screen.errors import ConfigError
from pathology_screen.experiments.localization import (
    FALSE_POSITIVE_RATE,
    box_target,
    threshold_slices,
)
from pathology_screen.experiments.pictures import (
    OUTLINES,
    Window,
    add_legend,
    highest_of,
    method_grid,
    outline,
)
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.slices import Slices
from pathology_screen.metrics import LocalizationMetric, average_precision, box_scores, pooled_mean
from pathology_screen.metrics.localization import COVERED

SHARE = 0.5
"""A pixel belongs to a mask or box that covers more than this share of it."""
PICTURE = 1.7
"""Height of a picture of the evaluation in inches."""


class Case(NamedTuple):
    """A slice that is shown: why, its place among the annotated slices, and the findings that count
    as its class."""

    rank: str
    place: int
    finding: str


def gallery(setting: Setting) -> Report:
    """Show slices with findings, input, reconstructions and maps side by side: the best, the median
    and the worst, and the median of each kind of finding, by the AUPRC of the first method's map
    under its first scoring; and how the boxes on the former are evaluated (Figure 7).

    The AUPRC of a slice asks whether its map ranks the pixels of the mask (where the scan has none,
    of the boxes) above all its others.

    Raises:
        ConfigError: if no slice shows a mask or a box, or one shows a box and there is no normal
            slice for the threshold.
    """
    slices = setting.section("test")
    regions = torch.stack([_region(slices, i) for i in range(len(slices))])
    shown = [i for i, region in enumerate(regions) if region.any()]
    if not shown:
        raise ConfigError(
            "no slice shows a mask (`label`) or a box: there is nothing to choose the slices by"
        )
    slices, regions = slices[shown], regions[shown]
    measurements = Measurements()
    results: dict[tuple[str, str], tuple[Tensor | None, Tensor]] = {}
    precision: dict[tuple[str, str], np.ndarray] = {}
    for model in tqdm(setting.models, desc="gallery", unit="method"):
        predictions = model.predict(slices)
        for scoring in setting.scorings(model):
            maps = model.maps(slices, predictions, scoring)
            values = np.array(
                [average_precision(*pair) for pair in zip(regions.numpy(), maps.numpy())]
            )
            measurements.add(
                model.label,
                scoring,
                "AUPRC of a slice",
                pooled_mean(values, slices.subjects),
                len(slices),
            )
            precision.setdefault((model.label, scoring), values)
            results.setdefault(
                (model.label, scoring), (predictions if model.method.reconstructs else None, maps)
            )
    first = next(iter(precision))
    extremes, kinds = _extremes(slices, precision[first]), _medians(slices, precision[first])
    figures = {
        "cases": method_grid(slices, results, *_titled(extremes), across=True),
        "findings": method_grid(slices, results, *_titled(kinds), across=True),
    }
    notes = [
        f"{len(slices)} slices with a mask or box, of {len(set(slices.subjects))} people.",
        f"Chosen by the AUPRC of {first[0]} ({first[1]}) on each slice, of the mask or, where there is none, of the "
        "boxes; of several runs the first is shown, and of two slices in the middle the better.",
        "Maps of one method and scoring share their colours; those of different ones do not compare.",
    ]
    boxed = [case for case in extremes if slices.box_labels[case.place]]
    if boxed:
        section, normals = threshold_slices(setting)
        figures["evaluation"] = _evaluation_figure(setting, slices, normals, boxed)
        notes.append(
            f"Evaluation ({setting.protocol}) of the largest box of each slice, with the threshold that at most 5 % of "
            f"the pixels of {len(normals)} normal slices of the {section} section exceed. Tagged pixels: green in the "
            "box, magenta in healthy tissue, grey elsewhere, where they do not count."
        )
    table = pd.DataFrame([_row(slices, case, precision) for case in (*extremes, *kinds)])
    return Report(
        "gallery", "Gallery", measurements, notes, setting.provenance(), figures, {"cases": table}
    )


def _region(slices: Slices, i: int) -> Tensor:
    """Pixels (1, H, W) of the mask of a slice, or of its boxes where it has none."""
    mask = slices.masks[i] > SHARE
    return mask if mask.any() else (slices.boxes[i] > SHARE).any(dim=0, keepdim=True)


def _extremes(slices: Slices, precision: np.ndarray) -> list[Case]:
    """The best, median and worst slice; fewer where there are fewer slices."""
    order = (-precision).argsort(kind="stable")
    once: dict[int, str] = {}
    for rank, place in (
        ("best", order[0]),
        ("median", order[(len(order) - 1) // 2]),
        ("worst", order[-1]),
    ):
        once.setdefault(int(place), rank)
    return [Case(rank, place, slices.pathology[place]) for place, rank in once.items()]


def _medians(slices: Slices, precision: np.ndarray) -> list[Case]:
    """The median slice of each finding."""
    findings = [set(labels) or {name} for labels, name in zip(slices.box_labels, slices.pathology)]
    cases = []
    for finding in sorted(set().union(*findings)):
        members = [i for i, names in enumerate(findings) if finding in names]
        order = sorted(members, key=lambda i: -precision[i])
        cases.append(Case("median of its kind", order[(len(order) - 1) // 2], finding))
    return cases


def _titled(cases: list[Case]) -> tuple[list[int], list[str]]:
    titles = [
        case.finding if case.rank == "median of its kind" else f"{case.rank}: {case.finding}"
        for case in cases
    ]
    return [case.place for case in cases], titles


def _row(slices: Slices, case: Case, precision: dict[tuple[str, str], np.ndarray]) -> dict:
    return {
        "chosen": case.rank,
        "finding": case.finding,
        "subject": slices.subjects[case.place],
        **{
            f"{label} ({scoring})": values[case.place]
            for (label, scoring), values in precision.items()
        },
    }


def _evaluation_figure(
    setting: Setting, slices: Slices, normals: Slices, cases: list[Case]
) -> Figure:
    """A row a slice: from the map of the first method under its first scoring to what counts as
    found and as false."""
    model = setting.models[0]
    scoring = setting.scorings(model)[0]
    healthy_maps = model.maps(normals, model.predict(normals), scoring)
    threshold = pixel_threshold(healthy_maps.numpy(), FALSE_POSITIVE_RATE)
    chosen = slices[[case.place for case in cases]]
    predictions = model.predict(chosen)
    maps = model.maps(chosen, predictions, scoring)
    columns = [
        "input",
        *(["reconstruction"] if model.method.reconstructs else []),
        "map",
        "above threshold",
    ]
    columns += ["annotation", "tagged"]
    window = Window.around(chosen.images)
    width = PICTURE * window.aspect * len(columns) + 1.9
    figure = Figure(figsize=(width, PICTURE * len(cases) + 0.6), layout="constrained")
    for i, (case, axes) in enumerate(
        zip(cases, figure.subplots(len(cases), len(columns), squeeze=False))
    ):
        panels = dict(zip(columns, axes))
        current = int(chosen.boxes[i].sum(dim=(1, 2)).argmax())
        pictures = {"input": chosen.images[i, 0], "reconstruction": predictions[i, 0]}
        above = maps[i, 0] * (maps[i, 0] > threshold)
        for name in columns:
            if name in ("map", "above threshold"):
                window.show(
                    panels[name],
                    maps[i, 0] if name == "map" else above,
                    "inferno",
                    highest_of(maps),
                )
            else:
                window.show(panels[name], pictures.get(name, chosen.images[i, 0]))
            if i == 0:
                panels[name].set_title(name, fontsize=9)
        _draw_annotation(panels["annotation"], chosen, i, current)
        _draw_tagged(panels["tagged"], chosen, i, current, above > 0)
        verdict = _verdict(setting, threshold, chosen, i, current, maps)
        axes[0].set_ylabel(
            f"{case.rank}\n{verdict}", rotation=0, ha="right", va="center", fontsize=8
        )
    figure.suptitle(f"{model.label} ({scoring})", fontsize=10)
    add_legend(
        figure,
        {
            "evaluated box": OUTLINES["box"],
            "other boxes": OUTLINES["other box"],
            "healthy tissue": "white",
        },
    )
    return figure


def _draw_annotation(axis: Axes, slices: Slices, i: int, current: int) -> None:
    outline(axis, torch.from_numpy(box_target(slices, i)["healthy"][0]), "white", 0.6)
    for k, box in enumerate(torch.cat([slices.boxes[i], slices.other_boxes[i]])):
        if k != current:
            outline(axis, box, OUTLINES["other box"], 1.2)
    outline(axis, slices.boxes[i][current], OUTLINES["box"], 1.2)


def _draw_tagged(axis: Axes, slices: Slices, i: int, current: int, tagged: Tensor) -> None:
    """Colour tagged pixels: green in the evaluated box, magenta in healthy tissue, grey
    elsewhere."""
    box, healthy = (
        slices.boxes[i][current] > COVERED,
        torch.from_numpy(box_target(slices, i)["healthy"][0]) > 0,
    )
    colours = torch.zeros(*tagged.shape, 4)
    for where, colour in (
        (tagged, (0.6, 0.6, 0.6)),
        (tagged & healthy, (1.0, 0.2, 0.8)),
        (tagged & box, (0.2, 0.9, 0.3)),
    ):
        colours[where] = torch.tensor([*colour, 0.85])
    axis.imshow(colours.numpy())
    outline(axis, slices.boxes[i][current], OUTLINES["box"], 1.2)


def _verdict(
    setting: Setting, threshold: float, slices: Slices, i: int, current: int, maps: Tensor
) -> str:
    labels = sorted(set(slices.box_labels[i]))
    rows = LocalizationMetric(threshold, labels, setting.protocol)(
        [maps[i]], [box_target(slices, i)]
    )
    scores = {name: values[current] for name, values in box_scores(rows, setting.protocol).items()}
    false = scores["false_positives"]  # not defined where nothing in the box is tagged
    return (
        f"{slices.box_labels[i][current]}\n{'detected' if scores['detected'] else 'missed'}\n"
        f"tagged: {scores['box_fraction']:.0%} of the box,\n{scores['healthy_fraction']:.0%} of healthy tissue\n"
        f"FP {'-' if np.isnan(false) else f'{false:.2g}'}, F1 {scores['f1']:.2f}"
    )
