"""Phantom brains in other contrasts than T1w."""

from functools import cache

import numpy as np

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.simulation import simulate

# fluid and grey matter, white matter being 1: spin echo equation at 3 tesla
# (benchmarks/acceptance.py)
CONTRASTS = {"T2w": (3.1, 1.6), "FLAIR": (0.1, 1.4), "PD": (0.9, 1.14), "CT": (0.28, 1.3)}


@cache
def phantom(
    kind: str = "healthy",
    intensity: tuple[float, float] | None = None,
    seed: tuple[int, ...] = (3, 1),
) -> tuple[np.ndarray, np.ndarray]:
    """A volume (I, J, K), float32, and its affine; `intensity` of fluid and grey matter."""
    volume = simulate(load_template(), seed, kind, intensity)
    return np.float32(volume.image * volume.brain), volume.affine
