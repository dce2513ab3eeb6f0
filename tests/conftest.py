"""The folder of real scans, where it is at hand; and a screener that needs no training, with phantom scans for it."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.calibration import Calibration
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.engines import calibration_identity
from pathology_screen.screening import Screener
from pathology_screen.screening.loading import Loaded

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PREPROCESSING = {"grid": "isotropic", "size": 64, "millimetres": 208.0, "percentile": 98.0, "domain": "brain_extracted"}
SCORES = tuple(round(0.001 * number, 3) for number in range(1, 21))


@pytest.fixture
def shared_data() -> Path:
    """Folder of real scans beside the checkout; tests that ask for it must be marked `needs_shared`."""
    if not SHARED.is_dir():
        pytest.skip("the real scans in ../shared/data are not at hand")
    return SHARED


class Dimmer(nn.Module):
    """Paints every slice darker: the plain residual is a share of the image."""

    def __init__(self, share=0.1):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(share))

    def forward(self, x):
        return x * (1 - self.share)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """Datalist of a phantom cohort of two extracted test scans, the second with a lesion."""
    root = tmp_path_factory.mktemp("cohort")
    return make_phantom_cohort(root, extracted=True, training=0, validation=0, calibration=0, healthy=1, lesions=1)


@pytest.fixture(scope="session")
def phantoms(cohort) -> list[Path]:
    """The two scans: a healthy one, and one with a lesion."""
    return [cohort.parent / item["image"] for item in json.loads(cohort.read_text())["test"]]


@pytest.fixture
def loaded(tmp_path_factory) -> Loaded:
    """A bundle without files: `Dimmer`, the plain residual, and slices of 64 pixels at 0.55 of the brain."""
    network = Dimmer()
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(network.state_dict(), weights)
    return Loaded("ra", network, AnomalyMap("none", equalize=False), weights, PREPROCESSING, 0.55)


@pytest.fixture
def make_calibration(loaded):
    """Function that makes a calibration of `loaded` with given scores, one a person."""

    def make(scores=SCORES, level=0.55, subjects=None, pixel_threshold=0.05):
        identity = calibration_identity(loaded.weights, PREPROCESSING, loaded.scoring, level)
        people = tuple(range(len(scores))) if subjects is None else tuple(subjects)
        rates = {"all_pixels": 0.05, "brain_pixels": 0.1}
        return Calibration(pixel_threshold, 0.05, rates, tuple(scores), people, identity, (0.9,) * len(scores))

    return make


@pytest.fixture
def make_screener(loaded, make_calibration):
    """Function that makes a screener of `loaded`."""

    def make(calibration=None, rate=0.05):
        return Screener(loaded, calibration or make_calibration(), rate)

    return make
