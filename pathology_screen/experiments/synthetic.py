"""Anomalies whose pixels are known: painted into healthy slices (paper, section 4.1, Table 1,
Figure 3), and lesions with outlines."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from pathology_screen.anomaly import perceptual_distance
from pathology_screen.anomaly.perceptual import is_installed
from pathology_screen.errors import ConfigError
from pathology_screen.experiments.methods import ExperimentSetting
from pathology_screen.experiments.pictures import Results, best_median_worst, method_grid
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
        if method.predictor.reconstructs:
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
            if method.predictor.reconstructs:
                pair = healthy.images, next(iter(predictions.values())).output
                measured = {
                    f"{kind} MSE": errors.mean_squared_error(*pair, slices.masks),
                    f"{kind} LPIPS": errors.perceptual_error(*pair, distance, slices.masks),
                }
                measurements.add_means(method.label, measured, slices.subjects)
            for scoring, prediction in predictions.items():
                auprc = pooled_average_precision(slices.lesions, prediction.maps, slices.subjects)
                measurements.add(method.label, scoring, f"{kind} AUPRC", auprc, len(slices))
                results[kind].setdefault((method.label, scoring), (method, prediction))
    shares = {kind: float(slices.lesions.float().mean()) for kind, slices in painted.items()}
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
    return setting.report("synthetic", "Synthetic anomalies", measurements, notes, figures)


def _examples(slices: AnnotatedSlices, results: Results) -> Figure:
    first = next(iter(results.values()))[0]
    maps = next(found.maps for method, found in reversed(results.values()) if method is first)
    values = [average_precision(*pair) for pair in zip(slices.lesions, maps)]
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


def lesions(setting: ExperimentSetting) -> Report:
    """Compare methods on scans with masks of lesions: error on healthy slices, pixel AUPRC.

    Pixels of all slices are pooled, background included; 95 % intervals are over subjects.

    Raises:
        ConfigError: if no slice shows a lesion or none is healthy.
    """
    slices = setting.slices
    measurements = Measurements(dict(zip(slices.subjects, slices.healthy)))
    if not slices.shows_lesion.any() or not slices.healthy.any():
        raise ConfigError(
            f"the {setting.section} section needs scans with masks of lesions (`label`), and "
            "healthy ones"
        )
    slices = slices[slices.shows_lesion | slices.healthy]
    lesion, healthy = slices.lesions, slices[slices.healthy]
    results: Results = {}
    for method in tqdm(setting.compared, desc="lesions", unit="method"):
        predictions = method.predict(slices)
        if method.predictor.reconstructs:
            pair = healthy.images, next(iter(predictions.values())).output[slices.healthy]
            found = {
                "healthy MSE": errors.mean_squared_error(*pair),
                "healthy SSIM": errors.structural_similarity(*pair),
            }
            measurements.add_means(method.label, found, healthy.subjects)
        for scoring, prediction in predictions.items():
            auprc = pooled_average_precision(lesion, prediction.maps, slices.subjects)
            measurements.add(method.label, scoring, "lesion AUPRC", auprc, len(slices))
            results.setdefault((method.label, scoring), (method, prediction))
    notes = [
        f"{len(slices)} slices of {slices.people} people; {slices.shows_lesion.sum()} slices show "
        "a lesion.",
        f"AUPRC of a detector that knows nothing: {float(lesion.float().mean()):.3f}, the share of "
        "lesion pixels.",
        "Intervals are 95 % percentile bootstrap intervals over people; with few people they are "
        "too narrow.",
    ]
    figures = {"maps": method_grid(slices, results, _largest(slices))}
    return setting.report("lesions", "Lesions with known outlines", measurements, notes, figures)


def _largest(slices: AnnotatedSlices, most: int = 6) -> list[int]:
    """For each kind of lesion the slice that shows most of it."""
    areas = np.where(slices.shows_lesion, slices.masks.sum(dim=(1, 2, 3)), -1)
    kinds = dict.fromkeys(slices.pathology[areas >= 0])
    return [int(np.argmax(np.where(slices.pathology == kind, areas, -1))) for kind in kinds][:most]
