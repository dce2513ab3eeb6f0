"""The folder of real scans; and a screener that needs no training, with slices for it."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from PIL import Image
from template_brains import Located, template_brain
from torch import nn

from pathology_screen.anomaly import AnomalyMap, AnomalyMapd
from pathology_screen.bundles import read_settings
from pathology_screen.calibration import Calibration
from pathology_screen.engines import prepare_reconstruction
from pathology_screen.predictor import Predictor, build_preprocessing
from pathology_screen.screening import Screener
from pathology_screen.screening.batch import Batch
from pathology_screen.screening.evaluated import EvaluatedBatch
from pathology_screen.screening.judge import Judge

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SCORES = tuple(round(0.001 * number, 3) for number in range(1, 21))


@pytest.fixture
def shared_data() -> Path:
    """Folder of real scans beside the checkout; tests that ask for it must be marked
    `needs_shared`."""
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
def slices(tmp_path_factory) -> list[Path]:
    """Two PNG files in the form of the standard plane, 233 x 197: a disc of tissue with dark
    ventricles, and the same with a bright lesion of 20 x 20 pixels."""
    root = tmp_path_factory.mktemp("slices")
    row, column = np.mgrid[:233, :197]
    radius = np.hypot((row - 116) / 85, (column - 98) / 68)
    texture = np.random.default_rng(0).normal(0, 6, radius.shape)
    image = np.where(radius < 1, 170 + texture, 0)
    image[(abs(row - 110) < 25) & (abs(abs(column - 98) - 12) < 6)] = 60
    paths = []
    for name, lesion in (("healthy", False), ("lesion", True)):
        picture = image.copy()
        if lesion:
            picture[90:110, 120:140] = 255
        path = root / f"sub-{name}_T1w.png"
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


def small_slices(domain="whole_head"):
    """Preprocessing of RA and options of its slices, of 64 pixels."""
    text = json.dumps(read_settings("ra")).replace("128", "64").replace("whole_head", domain)
    settings = json.loads(text)
    return build_preprocessing(settings["preprocessing"]), settings["slice"]


@pytest.fixture
def predictor(tmp_path_factory) -> Predictor:
    """A bundle without training: `Dimmer`, the plain residual, and slices of 64 pixels."""
    network = Dimmer()
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(network.state_dict(), weights)
    steps, options = small_slices()
    scoring = AnomalyMap("none", equalize=False)
    return Predictor("ra", network, scoring, steps, options, weights)


@pytest.fixture(scope="session")
def brain(tmp_path_factory) -> Path:
    """A brain-extracted scan, (75, 91, 75) of 2.4 mm: the template's, turned and larger."""
    path = tmp_path_factory.mktemp("brain") / "sub-brain_T1w.nii.gz"
    nib.save(template_brain(), path)
    return path


@pytest.fixture
def brain_predictor(predictor) -> Predictor:
    """`predictor` for brain-extracted scans, which knows where `brain` lies."""
    steps, options = small_slices("brain_extracted")
    load, *others = steps.transforms
    preprocessing = Compose([load, Located(), *others])
    return replace(predictor, preprocessing=preprocessing, slice_options=options)


@pytest.fixture
def make_brain_screener(brain_predictor, make_calibration):
    """Function that makes a screener of `brain_predictor`, of a calibration with these options."""

    def make(rate=0.05, **options):
        calibration = replace(make_calibration(**options), identity=brain_predictor.identity)
        return Screener(brain_predictor, calibration, rate)

    return make


@pytest.fixture
def evaluate(tmp_path, brain_predictor, make_brain_screener):
    """Function that screens items as the bundles do, around a network that needs no training, and
    gives the exit status."""

    def run(items, output=tmp_path / "out", network=None, rate=0.05, **options):
        calibration = make_brain_screener(0.5, **options).judge.calibration
        dataset = EvaluatedBatch(Batch(Judge(brain_predictor, calibration, rate), items, output))
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(dataset, batch_size=1, num_workers=0),
            network=network or brain_predictor.network,
            prepare_batch=prepare_reconstruction,
            postprocessing=Compose([AnomalyMapd(anomaly_map=brain_predictor.scoring)]),
            val_handlers=[dataset],
        )
        try:
            dataset.run(evaluator)
        except SystemExit as end:
            return end.code
        return 0

    return run


@pytest.fixture
def make_calibration(predictor):
    """Function that makes a calibration of `predictor` with given scores, one a person."""

    def make(scores=SCORES, subjects=None, pixel_threshold=0.05):
        people = tuple(range(len(scores))) if subjects is None else tuple(subjects)
        rates = {"all_pixels": 0.05, "brain_pixels": 0.1}
        given = (tuple(scores), people, predictor.identity, (0.9,) * len(scores))
        return Calibration(pixel_threshold, 0.05, rates, *given)

    return make


@pytest.fixture
def make_screener(predictor, make_calibration):
    """Function that makes a screener of `predictor`."""

    def make(calibration=None, rate=0.05):
        return Screener(predictor, calibration or make_calibration(), rate)

    return make
