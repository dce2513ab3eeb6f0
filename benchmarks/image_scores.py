"""Choose the score of a slice: how many lesions, painted into healthy slices in three sizes and
three intensities, each candidate calls suspicious at a false positive rate of 5 %.

TORCH_HOME=../shared/torch_home python benchmarks/image_scores.py --methods ra=RUN template \
    --dataset_dir ../shared/data/ixi_slices --datalist data_lists/ixi_slices.json --output OUT

Thresholds are those of the section "calibration"; slices are those of one other section.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter
from selection import run, selection_parser
from skimage.draw import ellipse
from torch import Tensor

from pathology_screen.anomaly.maps import PEAK_SIGMA, gaussian_blur
from pathology_screen.calibration.store import image_rank
from pathology_screen.experiments import ExperimentSetting, Measurements, Report
from pathology_screen.metrics.pooled import pooled_mean
from pathology_screen.space import brain_in_plane

RADII = {"small": 4, "medium": 8, "large": 14}
"""Name -> semi-axis in pixels of a 128 px slice: 7, 15 and 25 mm."""
INTENSITIES = {"dark": 0.3, "grey": 0.55, "bright": 1.0}
"""Name -> intensity; white matter is nearly 1, grey matter about 0.7."""
SUBJECT_FPR = 0.05


def scores(size: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name the candidates: maps (N, 1, size, size) -> (N,)."""
    brain = torch.from_numpy(brain_in_plane((size, size)))

    def highest(share: float) -> Callable[[Tensor], Tensor]:
        return lambda maps: maps.flatten(1).topk(round(share * size**2)).values.mean(1)

    def peak(sigma: float) -> Callable[[Tensor], Tensor]:
        return lambda maps: gaussian_blur(maps, sigma)[:, 0, brain].amax(1)

    return {
        "mean of the slice": lambda maps: maps.mean((1, 2, 3)),
        "mean of the brain": lambda maps: maps[:, 0, brain].mean(1),
        "highest 1 %": highest(0.01),
        "highest 5 %": highest(0.05),
        **{f"peak, sigma {sigma:g} px": peak(sigma) for sigma in (1.5, PEAK_SIGMA, 6.0)},
    }


def paint_lesion(image: np.ndarray, rng: np.random.Generator, radius: int, value: float):
    """Paint one ellipse with soft edges into the brain of a slice (H, W): the slice with it."""
    brain = brain_in_plane(image.shape)
    centres = np.argwhere(binary_erosion(brain, iterations=min(radius, 10)))
    centre = centres[rng.integers(len(centres))]
    axes, turn = (radius, radius * rng.uniform(0.7, 1.3)), rng.uniform(0, np.pi)
    lesion = np.zeros(image.shape)
    lesion[ellipse(*centre, *axes, shape=image.shape, rotation=turn)] = 1
    lesion = gaussian_filter(lesion, 1) * brain
    return image * (1 - lesion) + value * lesion


def compare(setting: ExperimentSetting) -> Report:
    """Measure every candidate with every method and scoring."""
    healthy = setting.slices[setting.slices.healthy]
    people = setting.slices_of("calibration")
    candidates = scores(healthy.images.shape[-1])
    painted = {"none": healthy}
    for size, radius in RADII.items():
        for kind, value in INTENSITIES.items():
            images = [
                paint_lesion(image, np.random.default_rng([setting.seed, radius, i]), radius, value)
                for i, image in enumerate(healthy.images[:, 0].numpy())
            ]
            tensor = torch.from_numpy(np.stack(images)[:, None]).float()
            painted[f"{size} {kind}"] = replace(healthy, images=tensor)
    measurements = Measurements()
    for method in setting.compared:
        calibrated = method.predict(people)
        predicted = {name: method.predict(slices) for name, slices in painted.items()}
        for scoring, reference in calibrated.items():
            for name, score in candidates.items():
                ranked = np.sort(score(reference.maps).numpy())
                threshold = ranked[-image_rank(len(ranked), SUBJECT_FPR)]
                above = {
                    lesion: (score(made[scoring].maps) > threshold).double()
                    for lesion, made in predicted.items()
                }
                above["all lesions"] = torch.stack([*above.values()][1:]).mean(0)
                for lesion, share in above.items():
                    statistic = pooled_mean(share.numpy(), healthy.subjects)
                    measured = method.label, f"{scoring}, {name}", lesion, statistic, len(healthy)
                    measurements.add(*measured)
    notes = [
        f"Share called suspicious of {len(healthy)} slices of {healthy.people} people of the "
        f"section {setting.section}; thresholds of {len(people)} people, at {SUBJECT_FPR:.0%}.",
        "Semi-axes in pixels: " + ", ".join(f"{name} {radius}" for name, radius in RADII.items()),
        "Intensities: " + ", ".join(f"{name} {value:g}" for name, value in INTENSITIES.items()),
    ]
    title = "Scores of a slice"
    return Report("image_scores", title, measurements, notes, setting.provenance())


def main(arguments: list[str] | None = None) -> None:
    run(compare, selection_parser(__doc__, scoring=["perceptual", "eq5"]), arguments)


if __name__ == "__main__":
    main()
