"""How well each method tells lesions with known outlines from healthy tissue, and what it leaves of
healthy slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor
from tqdm import tqdm

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.models import ComparedMethod
from pathology_screen.experiments.pictures import method_grid
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.slices import HEALTHY, Slices
from pathology_screen.metrics import (
    mean_squared_error,
    pooled_average_precision,
    pooled_mean,
    structural_similarity,
)

SHARE = 0.5
"""A pixel of the grid belongs to a lesion where its mask covers more than this share of it."""


def lesions(setting: Setting) -> Report:
    """Compare methods on scans with masks of lesions: reconstruction error on healthy slices, and
    pixel AUPRC.

    Pixels of all slices are pooled, background included; intervals are 95 % bootstrap intervals
    over subjects.

    Raises:
        ConfigError: if no slice shows a lesion or none is healthy.
    """
    slices = setting.section("test")
    lesion = slices.masks > SHARE
    if not lesion.any() or HEALTHY not in slices.pathology:
        raise ConfigError(
            "the test section needs scans with masks of lesions (`label`), and healthy ones"
        )
    shown = sorted({i for i in range(len(slices)) if lesion[i].any()} | set(_healthy(slices)))
    slices, lesion = slices[shown], lesion[shown]
    maps = {}
    measurements = Measurements(
        {subject: name == HEALTHY for subject, name in zip(slices.subjects, slices.pathology)}
    )
    for model in tqdm(setting.models, desc="lesions", unit="method"):
        predictions = model.predict(slices)
        if model.method.reconstructs:
            _measure_healthy(model, slices, predictions, measurements)
        for scoring in setting.scorings(model):
            found = model.maps(slices, predictions, scoring)
            statistic = pooled_average_precision(
                lesion.flatten(1).numpy(), found.flatten(1).numpy(), slices.subjects
            )
            measurements.add(model.label, scoring, "lesion AUPRC", statistic, len(slices))
            maps[model.label, scoring] = (predictions if model.method.reconstructs else None, found)
    with_lesion = [i for i in range(len(slices)) if lesion[i].any()]
    notes = [
        f"{len(slices)} slices of {len(set(slices.subjects))} people; {len(with_lesion)} slices show a lesion.",
        f"AUPRC of a detector that knows nothing: {float(lesion.float().mean()):.3f}, the share of lesion pixels.",
        "Intervals are 95 % percentile bootstrap intervals over people; with few people they are too narrow.",
    ]
    figures = {"maps": method_grid(slices, maps, _examples(slices, with_lesion))}
    return Report(
        "lesions", "Lesions with known outlines", measurements, notes, setting.provenance(), figures
    )


def _healthy(slices: Slices) -> Iterator[int]:
    return (i for i, name in enumerate(slices.pathology) if name == HEALTHY)


def _measure_healthy(
    model: ComparedMethod, slices: Slices, predictions: Tensor, measurements: Measurements
) -> None:
    places = list(_healthy(slices))
    subjects = [slices.subjects[i] for i in places]
    images, reconstructions = slices.images[places], predictions[places]
    errors = {
        "healthy MSE": mean_squared_error(images, reconstructions),
        "healthy SSIM": structural_similarity(images, reconstructions),
    }
    for metric, values in errors.items():
        measurements.add(
            model.label, "", metric, pooled_mean(values.numpy(), subjects), len(places)
        )


def _examples(slices: Slices, with_lesion: Sequence[int], most: int = 6) -> list[int]:
    """For each kind of lesion the slice that shows most of it."""
    areas = slices.masks.sum(dim=(1, 2, 3))
    kinds = dict.fromkeys(slices.pathology[i] for i in with_lesion)
    return [
        max((i for i in with_lesion if slices.pathology[i] == kind), key=lambda i: areas[i])
        for kind in kinds
    ][:most]
