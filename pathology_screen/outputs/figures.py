"""Pictures of one screened slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pathology_screen.files import replacing


def save_panel(
    image: np.ndarray, reconstruction: np.ndarray, anomaly_map: np.ndarray, threshold: float, title: str, path: Path
) -> None:
    """Draw input, pseudo-healthy reconstruction, anomaly map over the input, and the regions above the threshold.

    Args:
        image, reconstruction: (H, W) in [0, 1], rows to posterior, columns to the patient's left.
        anomaly_map: (H, W), at least 0.
        threshold: a pixel belongs to a region where the map is greater.
        title: one line; no patient data.
        path: of the PNG.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained", facecolor="black")
    axes = figure.subplots(1, 4)
    for axis, name in zip(axes, ("input", "pseudo-healthy reconstruction", "anomaly map", "above threshold")):
        axis.set_title(name, color="white", fontsize=10)
        axis.axis("off")
    axes[0].imshow(image, cmap="gray", vmin=0, vmax=1)
    axes[1].imshow(reconstruction, cmap="gray", vmin=0, vmax=1)
    highest = max(2 * threshold, float(anomaly_map.max()), np.finfo(np.float32).tiny)
    for axis in axes[2:]:
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    opacity = np.clip(anomaly_map / max(threshold, np.finfo(np.float32).tiny), 0, 1) * 0.8
    overlay = axes[2].imshow(anomaly_map, cmap="inferno", vmin=0, vmax=highest, alpha=opacity)
    figure.colorbar(overlay, ax=axes[2], fraction=0.046).ax.tick_params(colors="white", labelsize=7)
    regions = anomaly_map > threshold
    if regions.any():
        axes[3].imshow(np.ma.masked_where(~regions, regions), cmap="autumn", vmin=0, vmax=1, alpha=0.55)
        axes[3].contour(regions, levels=[0.5], colors="red", linewidths=0.8)
    for axis in (axes[0], axes[2]):
        axis.text(0.02, 0.5, "R", color="yellow", transform=axis.transAxes, va="center")
        axis.text(0.95, 0.5, "L", color="yellow", transform=axis.transAxes, va="center")
    figure.suptitle(title, color="white", fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
