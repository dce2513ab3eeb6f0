"""How well each method tells lesions with known outlines from healthy tissue."""

import numpy as np
from tqdm import tqdm

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.methods import ExperimentSetting
from pathology_screen.experiments.pictures import Results, method_grid
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.slices import COVERED_SHARE, AnnotatedSlices
from pathology_screen.metrics.pooled import pooled_average_precision
from pathology_screen.metrics.reconstruction import mean_squared_error, structural_similarity


def lesions(setting: ExperimentSetting) -> Report:
    """Compare methods on scans with masks of lesions: error on healthy slices, pixel AUPRC.

    Pixels of all slices are pooled, background included; 95 % intervals are over subjects.

    Raises:
        ConfigError: if no slice shows a lesion or none is healthy.
    """
    slices = setting.slices
    measurements = Measurements(dict(zip(slices.subjects, slices.healthy)))
    if not shows_lesion(slices).any() or not slices.healthy.any():
        raise ConfigError(
            f"the {setting.section} section needs scans with masks of lesions (`label`), and "
            "healthy ones"
        )
    slices = slices[shows_lesion(slices) | slices.healthy]
    lesion, healthy = slices.masks > COVERED_SHARE, slices[slices.healthy]
    results: Results = {}
    for method in tqdm(setting.compared, desc="lesions", unit="method"):
        predictions = method.predict(slices)
        if method.reconstructs:
            pair = healthy.images, next(iter(predictions.values())).output[slices.healthy]
            errors = {
                "healthy MSE": mean_squared_error(*pair),
                "healthy SSIM": structural_similarity(*pair),
            }
            measurements.add_means(method.label, errors, healthy.subjects)
        for scoring, prediction in predictions.items():
            pixels = lesion.flatten(1).numpy(), prediction.maps.flatten(1).numpy()
            auprc = pooled_average_precision(*pixels, slices.subjects)
            measurements.add(method.label, scoring, "lesion AUPRC", auprc, len(slices))
            results.setdefault((method.label, scoring), (method, prediction))
    notes = [
        f"{len(slices)} slices of {slices.people} people; "
        f"{np.count_nonzero(shows_lesion(slices))} slices show a lesion.",
        f"AUPRC of a detector that knows nothing: {float(lesion.float().mean()):.3f}, the share of "
        "lesion pixels.",
        "Intervals are 95 % percentile bootstrap intervals over people; with few people they are "
        "too narrow.",
    ]
    figures = {"maps": method_grid(slices, results, _examples(slices))}
    title = "Lesions with known outlines"
    return Report("lesions", title, measurements, notes, setting.provenance(), figures)


def shows_lesion(slices: AnnotatedSlices) -> np.ndarray:
    """(N,), whether each slice shows a lesion with an outline."""
    return (slices.masks > COVERED_SHARE).flatten(1).any(dim=1).numpy()


def _examples(slices: AnnotatedSlices, most: int = 6) -> list[int]:
    """For each kind of lesion the slice that shows most of it."""
    areas = np.where(shows_lesion(slices), slices.masks.sum(dim=(1, 2, 3)), -1)
    kinds = dict.fromkeys(slices.pathology[areas >= 0])
    return [int(np.argmax(np.where(slices.pathology == kind, areas, -1))) for kind in kinds][:most]
