"""Synthetic anomalies painted into healthy slices (paper, section 4.1, Table 1, Figure 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pathology_screen.anomaly import perceptual_distance
from pathology_screen.anomaly.perceptual import is_installed
from pathology_screen.experiments.models import ComparedMethod
from pathology_screen.experiments.pictures import method_grid
from pathology_screen.experiments.published import published
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.slices import Slices
from pathology_screen.metrics import (
    mean_squared_error,
    perceptual_error,
    pooled_average_precision,
    pooled_mean,
    relative_sharpness,
    structural_similarity,
)
from pathology_screen.synthetic import add_ellipses, copy_paste

KINDS: dict[str, Callable[..., Any]] = {"ellipses": add_ellipses, "copy-paste": copy_paste}


def synthetic(setting: Setting) -> Report:
    """Compare methods on the healthy test slices with three ellipses, and with a copied rectangle,
    painted in.

    Errors inside the altered region are those against the slice before it was altered: what a
    pseudo-healthy reconstruction should give. AUPRC pools the pixels of all slices, background
    included.
    """
    healthy = setting.section("test").healthy()
    backbone = "alex" if is_installed("alex") else setting.shared.backbone
    distance = perceptual_distance(backbone)
    measurements = Measurements()
    altered = {kind: paint(healthy, kind, setting) for kind in KINDS}
    drawn: dict[str, dict[tuple[str, str], tuple[Tensor | None, Tensor]]] = {
        kind: {} for kind in KINDS
    }
    for model in tqdm(setting.models, desc="synthetic", unit="method"):
        if model.method.reconstructs:
            _measure_healthy(model, healthy, distance, measurements)
        for kind, slices in altered.items():
            predictions = model.predict(slices)
            if model.method.reconstructs:
                errors = {
                    f"{kind} MSE": mean_squared_error(healthy.images, predictions, slices.masks),
                    f"{kind} LPIPS": perceptual_error(
                        healthy.images, predictions, distance, slices.masks
                    ),
                }
                for name, values in errors.items():
                    measurements.add(
                        model.label,
                        "",
                        name,
                        pooled_mean(values.numpy(), slices.subjects),
                        len(slices),
                    )
            for scoring in setting.scorings(model):
                maps = model.maps(slices, predictions, scoring)
                labels, scores = (
                    pictures.flatten(1).numpy() for pictures in (slices.masks > 0, maps)
                )
                statistic = pooled_average_precision(labels, scores, slices.subjects)
                measurements.add(model.label, scoring, f"{kind} AUPRC", statistic, len(slices))
                drawn[kind][model.label, scoring] = (
                    predictions if model.method.reconstructs else None,
                    maps,
                )
    base = {kind: float((slices.masks > 0).float().mean()) for kind, slices in altered.items()}
    notes = [
        f"{len(healthy)} healthy slices of {len(set(healthy.subjects))} people, registered as they are.",
        f"Intensities of ellipses are percentiles of the {setting.percentiles_of}.",
        "AUPRC of a detector that knows nothing: "
        + ", ".join(f"{kind} {share:.3f}" for kind, share in base.items())
        + ".",
        "LPIPS is on AlexNet, as in the paper's Table 1."
        if backbone == "alex"
        else f"LPIPS is that of {backbone}; the paper's Table 1 uses AlexNet, whose weights are not installed.",
        "Errors are on the scale of images in [0, 1]; the paper prints them times 100.",
    ]
    chosen = list(range(0, len(healthy), max(1, len(healthy) // 5)))[:5]
    figures = {
        kind.replace("-", "_"): method_grid(altered[kind], drawn[kind], chosen) for kind in KINDS
    }
    tables = published("synthetic", setting.section("test"), setting)
    return Report(
        "synthetic",
        "Synthetic anomalies",
        measurements,
        notes,
        setting.provenance(),
        figures,
        tables,
    )


def paint(healthy: Slices, kind: str, setting: Setting) -> Slices:
    """Paint one kind of anomaly into each slice; the masks of the result are the altered pixels, 0
    or 1.

    Every draw is a function of the seed, the kind and the place of the slice.
    """
    options = {"percentiles_of": setting.percentiles_of} if kind == "ellipses" else {}
    images, masks = [], []
    for place, image in enumerate(healthy.images[:, 0].numpy()):
        rng = np.random.default_rng([setting.seed, list(KINDS).index(kind), place])
        anomalous, mask = KINDS[kind](image, rng, **options)
        images.append(torch.from_numpy(anomalous).float())
        masks.append(torch.from_numpy(mask).float())
    painted, altered = torch.stack(images)[:, None], torch.stack(masks)[:, None]
    return replace(healthy, images=painted, masks=altered, pathology=(kind,) * len(healthy))


def _measure_healthy(
    model: ComparedMethod,
    healthy: Slices,
    distance: Callable[[Tensor, Tensor], Tensor],
    measurements: Measurements,
) -> None:
    reconstructions = model.predict(healthy)
    measured = {
        "healthy MSE": mean_squared_error(healthy.images, reconstructions),
        "healthy SSIM": structural_similarity(healthy.images, reconstructions),
        "healthy LPIPS": perceptual_error(healthy.images, reconstructions, distance),
        "sharpness": relative_sharpness(healthy.images, reconstructions),
    }
    for name, values in measured.items():
        measurements.add(
            model.label, "", name, pooled_mean(values.numpy(), healthy.subjects), len(healthy)
        )
