"""A calibration of three people with two slices each."""

import numpy as np
import pytest

from pathology_screen.calibration import Calibration, fit_calibration

SCORES = [0.5, 0.1, 0.4, 0.2, 0.6, 0.3]
NAMES = ["anna", "anna", "ben", "ben", "cleo", "cleo"]
IDENTITY = {
    "weights_sha256": "a" * 64,
    "preprocessing": {"grid": "isotropic", "size": 128, "levels": (10, 12)},
    "scoring": {"perceptual": "none", "equalize": True, "sigma": 2.0},
}


@pytest.fixture
def healthy() -> dict:
    """Arguments of `fit_calibration`: random maps on images whose left half is background."""
    maps = np.random.default_rng(0).random((6, 1, 16, 16), dtype=np.float32)
    images = np.ones_like(maps)
    images[..., :8] = 0
    given = {"scores": SCORES, "subjects": NAMES, "identity": IDENTITY}
    return {"maps": maps, "images": images, **given}


@pytest.fixture
def calibration(healthy) -> Calibration:
    return fit_calibration(**healthy)


@pytest.fixture
def of_people():
    """Function that makes a calibration of people with these scores."""

    def make(scores):
        scores = tuple(map(float, scores))
        return Calibration(0.1, 0.05, {}, scores, tuple(range(len(scores))), {})

    return make
