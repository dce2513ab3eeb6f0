"""How validation errors fell while runs were trained (paper, Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pathology_screen.errors import ArtifactError

CURVES = {"val_mse": "validation MSE", "val_perceptual_distance": "validation perceptual distance"}


def training_curves(runs: Sequence[tuple[str, Path]]) -> Figure:
    """Draw validation MSE and perceptual distance over the epochs.

    Args:
        runs: label and output folder of each training run, with its `log.csv`; runs of one label
            share their colour.

    Raises:
        ArtifactError: if a run has no log.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = dict(zip(CURVES, figure.subplots(1, len(CURVES))))
    colours = {label: f"C{i}" for i, label in enumerate(dict(runs))}
    for label, run in runs:
        if not (run / "log.csv").is_file():
            raise ArtifactError(
                f"{label}: {run.name} has no log.csv: is it the output_dir of a training run?"
            )
        log = pd.read_csv(run / "log.csv")
        for name, axis in axes.items():
            if name in log:
                validated = log[log[name].notna()]
                axis.plot(
                    validated["epoch"], validated[name], colours[label], label=label, linewidth=1
                )
    for name, axis in axes.items():
        axis.set_title(CURVES[name], fontsize=10)
        axis.set_xlabel("epoch")
        named = dict(zip(*reversed(axis.get_legend_handles_labels())))
        axis.legend(named.values(), named, fontsize=7)
    return figure
