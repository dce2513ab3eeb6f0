"""Pictures of one screened slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pathology_screen.files import replacing

OUTLINE = "#4de1ff"
"""Colour of the template's brain."""


def save_panel(
    image: np.ndarray,
    reconstruction: np.ndarray | None,
    anomaly_map: np.ndarray,
    threshold: float,
    title: str,
    path: Path,
    template: np.ndarray | None = None,
) -> None:
    """Draw input, pseudo-healthy reconstruction, anomaly map over the input, and the regions above
    the threshold.

    Args:
        image: (H, W) in [0, 1], rows to posterior, columns to the patient's left.
        reconstruction: likewise; None for a method that does not reconstruct.
        anomaly_map: (H, W), at least 0.
        threshold: a pixel belongs to a region where the map is greater.
        title: one line; no patient data.
        path: of the PNG.
        template: (H, W), above 0.5 in the template's brain (see `template_on_slice`), whose outline
            is drawn over the input; None for a slice that was not registered.
    """
    pictures = [("input", image), ("pseudo-healthy reconstruction", reconstruction)]
    pictures = [(name, picture) for name, picture in pictures if picture is not None]
    pictures += [("anomaly map", image), ("above threshold", image)]
    figure = Figure(figsize=(3 * len(pictures), 3.6), layout="constrained", facecolor="black")
    axes = figure.subplots(1, len(pictures))
    for axis, (name, picture) in zip(axes, pictures):
        axis.set_title(name, color="white", fontsize=10)
        axis.axis("off")
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    if template is not None:
        axes[0].contour(template, levels=[0.5], colors=OUTLINE, linewidths=0.8)
        axes[0].text(
            0.5,
            0.01,
            "template's brain",
            color=OUTLINE,
            fontsize=7,
            transform=axes[0].transAxes,
            ha="center",
        )
    highest = max(2 * threshold, float(anomaly_map.max()), np.finfo(np.float32).tiny)
    opacity = np.clip(anomaly_map / max(threshold, np.finfo(np.float32).tiny), 0, 1) * 0.8
    overlay = axes[-2].imshow(anomaly_map, cmap="inferno", vmin=0, vmax=highest, alpha=opacity)
    figure.colorbar(overlay, ax=axes[-2], fraction=0.046).ax.tick_params(
        colors="white", labelsize=7
    )
    regions = anomaly_map > threshold
    if regions.any():
        axes[-1].imshow(
            np.ma.masked_where(~regions, regions), cmap="autumn", vmin=0, vmax=1, alpha=0.55
        )
        axes[-1].contour(regions, levels=[0.5], colors="red", linewidths=0.8)
    for axis in (axes[0], axes[-2]):
        axis.text(0.02, 0.5, "R", color="yellow", transform=axis.transAxes, va="center")
        axis.text(0.95, 0.5, "L", color="yellow", transform=axis.transAxes, va="center")
    figure.suptitle(title, color="white", fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
