"""Synthetic anomalies painted into healthy slices (paper, section 4.1, Table 1, Figure 3)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from pathology_screen.anomaly import perceptual_distance
from pathology_screen.anomaly.perceptual import is_installed
from pathology_screen.experiments.methods import ExperimentSetting
from pathology_screen.experiments.pictures import Results, best_median_worst, method_grid
from pathology_screen.experiments.published import published
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.slices import AnnotatedSlices
from pathology_screen.metrics import reconstruction as errors
from pathology_screen.metrics.pooled import average_precision, pooled_average_precision
from pathology_screen.synthetic import add_ellipses, copy_paste

KINDS: dict[str, Callable[..., Any]] = {"ellipses": add_ellipses, "copy-paste": copy_paste}


def synthetic(setting: ExperimentSetting) -> Report:
    """Compare methods on the healthy slices of the section with three ellipses, and with a copied
    rectangle, painted in.

    Errors inside the altered region are those against the slice before it was altered: what a
    pseudo-healthy reconstruction should give. AUPRC pools all pixels, background included.
    """
    healthy = setting.slices[setting.slices.healthy]
    backbone = "alex" if is_installed("alex") else setting.shared.backbone
    distance = perceptual_distance(backbone)
    painted = {kind: paint(healthy, kind, setting) for kind in KINDS}
    measurements = Measurements()
    results: dict[str, Results] = {kind: {} for kind in KINDS}
    for method in tqdm(setting.compared, desc="synthetic", unit="method"):
        if method.reconstructs:
            pair = healthy.images, method.reconstruct(healthy)
            measured = {
                "healthy MSE": errors.mean_squared_error(*pair),
                "healthy SSIM": errors.structural_similarity(*pair),
                "healthy LPIPS": errors.perceptual_error(*pair, distance),
                "sharpness": errors.relative_sharpness(*pair),
            }
            measurements.add_means(method.label, measured, healthy.subjects)
        for kind, slices in painted.items():
            predictions = method.predict(slices)
            if method.reconstructs:
                pair = healthy.images, next(iter(predictions.values())).output
                measured = {
                    f"{kind} MSE": errors.mean_squared_error(*pair, slices.masks),
                    f"{kind} LPIPS": errors.perceptual_error(*pair, distance, slices.masks),
                }
                measurements.add_means(method.label, measured, slices.subjects)
            for scoring, prediction in predictions.items():
                pixels = ((slices.masks > 0).flatten(1).numpy(), prediction.maps.flatten(1).numpy())
                auprc = pooled_average_precision(*pixels, slices.subjects)
                measurements.add(method.label, scoring, f"{kind} AUPRC", auprc, len(slices))
                results[kind].setdefault((method.label, scoring), (method, prediction))
    shares = {kind: float((slices.masks > 0).float().mean()) for kind, slices in painted.items()}
    chance = ", ".join(f"{kind} {share:.3f}" for kind, share in shares.items())
    notes = [
        f"{len(healthy)} healthy slices of {healthy.people} people, registered as they are.",
        f"Intensities of ellipses are percentiles of the {setting.percentiles_of}.",
        f"AUPRC of a detector that knows nothing: {chance}.",
        "LPIPS is on AlexNet, as in the paper's Table 1."
        if backbone == "alex"
        else f"LPIPS is that of {backbone}; the paper's Table 1 uses AlexNet, whose weights are "
        "not installed.",
        "Errors are on the scale of images in [0, 1]; the paper prints them times 100.",
        "Pictures are of the best, the median and the worst slice by the AUPRC of the first "
        "method's map under its last scoring.",
    ]
    figures = {kind.replace("-", "_"): _examples(painted[kind], results[kind]) for kind in KINDS}
    tables = published("synthetic", setting)
    title = "Synthetic anomalies"
    return Report("synthetic", title, measurements, notes, setting.provenance(), figures, tables)


def _examples(slices: AnnotatedSlices, results: Results) -> Figure:
    first = next(iter(results.values()))[0]
    maps = next(found.maps for method, found in reversed(results.values()) if method is first)
    values = [average_precision(*pair) for pair in zip(slices.masks.numpy() > 0, maps.numpy())]
    ranks = best_median_worst(np.array(values))
    return method_grid(slices, results, [*ranks], [*ranks.values()])


def paint(healthy: AnnotatedSlices, kind: str, setting: ExperimentSetting) -> AnnotatedSlices:
    """Paint one kind of anomaly into each slice; masks are the altered pixels, 0 or 1.

    Every draw is a function of the seed, the kind and the place of the slice.
    """
    options = {"percentiles_of": setting.percentiles_of} if kind == "ellipses" else {}
    painted = []
    for place, image in enumerate(healthy.images[:, 0].numpy()):
        rng = np.random.default_rng([setting.seed, list(KINDS).index(kind), place])
        painted.append(KINDS[kind](image, rng, **options))
    images, masks = (
        torch.stack([torch.from_numpy(part).float() for part in parts])[:, None]
        for parts in zip(*painted)
    )
    kinds = np.full(len(healthy), kind)
    return replace(healthy, images=images, masks=masks, pathology=kinds)
