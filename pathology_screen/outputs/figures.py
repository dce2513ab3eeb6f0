"""Pictures of one screened slice, and the brain of the template on it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage as ndi

from pathology_screen.files import replacing
from pathology_screen.result import ScreenedSlice
from pathology_screen.space import load_brain_template, tissue_mask

OUTLINE = "#4de1ff"
"""Colour of the template's brain."""
TINY = float(np.finfo(np.float32).tiny)


def plane_in_words(one: ScreenedSlice) -> str:
    """Which slice was screened."""
    if one.fit is None or one.plane_mm is None:
        return "single slice, not registered"
    return f"plane z = {one.plane_mm:+g} mm of MNI152"


def template_on_slice(one: ScreenedSlice) -> np.ndarray | None:
    """Cut the template's brain at the plane and resample it onto a slice: where it does not lie on
    the brain of the scan, the registration is wrong.

    Returns:
        (H, W), float32, above 0.5 in the brain; None for a slice that was not registered.
    """
    if one.mni_affine is None:
        return None
    to_voxel = np.linalg.solve(load_brain_template().affine, one.mni_affine)
    shape = (*one.image.shape, 1)
    return ndi.affine_transform(_template(), to_voxel, output_shape=shape, order=1)[..., 0]


@cache
def _template() -> np.ndarray:
    """1 in the template's brain and its ventricles, 0 elsewhere, (197, 233, 189)."""
    mask = ndi.binary_fill_holes(tissue_mask(np.asarray(load_brain_template().dataobj)))
    return mask.astype(np.float32)


def draw_map(
    axes: Axes, anomaly_map: np.ndarray, threshold: float, opacity: float, **view: Any
) -> Any:
    """Lay an anomaly map over a picture, translucent below the threshold and at most `opacity`."""
    alpha = np.clip(anomaly_map / max(threshold, TINY), 0, 1) * opacity
    highest = max(2 * threshold, float(anomaly_map.max()), TINY)
    return axes.imshow(anomaly_map, cmap="inferno", vmin=0, vmax=highest, alpha=alpha, **view)


def draw_template(axes: Axes, template: np.ndarray) -> None:
    """Draw the outline of the template's brain."""
    axes.contour(template, levels=[0.5], colors=OUTLINE, linewidths=0.8)


def save_panel(
    image: np.ndarray,
    reconstruction: np.ndarray | None,
    anomaly_map: np.ndarray,
    threshold: float,
    title: str,
    path: Path,
    template: np.ndarray | None = None,
) -> None:
    """Draw input with the outline of the template, pseudo-healthy reconstruction, anomaly map over
    the input, and the regions where it exceeds the threshold, as a PNG.

    Args:
        image: (H, W) in [0, 1], rows to posterior, columns to the patient's left.
        reconstruction: likewise; None for a method that does not reconstruct.
        anomaly_map, threshold: (H, W), at least 0; and its limit.
        title, path: one line without patient data; where the picture is written.
        template: see `template_on_slice`.
    """
    pictures = {"input": image, "anomaly map": image, "above threshold": image}
    if reconstruction is not None:
        pictures = {"input": image, "pseudo-healthy reconstruction": reconstruction, **pictures}
    figure = Figure(figsize=(3 * len(pictures), 3.6), layout="constrained", facecolor="black")
    axes = figure.subplots(1, len(pictures))
    for axis, (name, picture) in zip(axes, pictures.items()):
        axis.set_title(name, color="white", fontsize=10)
        axis.axis("off")
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    if template is not None:
        draw_template(axes[0], template)
        text = {"color": OUTLINE, "fontsize": 7, "transform": axes[0].transAxes, "ha": "center"}
        axes[0].text(0.5, 0.01, "template's brain", **text)
    bar = figure.colorbar(
        draw_map(axes[-2], anomaly_map, threshold, 0.8), ax=axes[-2], fraction=0.046
    )
    bar.ax.tick_params(colors="white", labelsize=7)
    regions = anomaly_map > threshold
    if regions.any():
        shown = np.ma.masked_where(~regions, regions)
        axes[-1].imshow(shown, cmap="autumn", vmin=0, vmax=1, alpha=0.55)
        axes[-1].contour(regions, levels=[0.5], colors="red", linewidths=0.8)
    for axis in (axes[0], axes[-2]):
        for x, side in ((0.02, "R"), (0.95, "L")):
            axis.text(x, 0.5, side, color="yellow", transform=axis.transAxes, va="center")
    figure.suptitle(title, color="white", fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
