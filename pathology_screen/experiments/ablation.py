"""What each part of Eq. 5, and of the training, adds (paper, section 4.3, Table 3, Figure 6)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pathology_screen.errors import ArtifactError
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.localization import localization
from pathology_screen.experiments.methods import SCORINGS, ExperimentSetting
from pathology_screen.experiments.published import published
from pathology_screen.experiments.report import Report
from pathology_screen.experiments.slices import NORMAL

CURVES = {"val_mse": "validation MSE", "val_perceptual_distance": "validation perceptual distance"}


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
    tables = {"classes": found.tables["classes"], **published("ablation", setting)}
    title = "Ablation of the anomaly map"
    return replace(found, name="ablation", title=title, figures=figures, tables=tables)


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
