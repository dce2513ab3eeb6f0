"""A small cohort of drawn slices, and networks made by hand that know the answer or nothing."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from slice_cohort import Difference, make_slice_cohort
from torch import nn

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.experiments import ExperimentSetting, report
from pathology_screen.experiments.methods import ComparedMethod
from pathology_screen.predictor import Predictor


class Lookup(nn.Module):
    """Answers an image as that of the known ones (N, 1, H, W) that it shares most pixels with."""

    def __init__(self, images, answers):
        super().__init__()
        self.images, self.answers = images, answers

    def forward(self, x):
        equal = (x[:, None] == self.images[None]).flatten(2).sum(dim=2)
        return self.answers[equal.argmax(dim=1)]


@pytest.fixture
def light_distance(monkeypatch):
    """No perceptual network is loaded, and few resamples are drawn."""
    monkeypatch.setattr(report, "RESAMPLES", 50)
    for module in ("synthetic", "normative", "methods"):
        where = import_module(f"pathology_screen.experiments.{module}")
        monkeypatch.setattr(where, "perceptual_distance", lambda name: Difference())


@pytest.fixture(scope="session")
def datalist(tmp_path_factory) -> Path:
    """Datalist of two training, two calibration and eight test slices, three of them healthy."""
    return make_slice_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def profile():
    return ExperimentSetting(("ra",)).shared


@pytest.fixture(scope="session")
def prepared():
    """The slices of each section, prepared once for all settings."""
    return {}


@pytest.fixture
def make_setting(datalist, prepared, profile):
    """Function that gives a setting on the cohort with methods made by hand, perhaps with other
    slices of its test section."""

    def make(*compared, slices=None, methods=("template",), **options):
        options["configured"] = (profile, list(compared)) if compared else None
        sections = prepared if slices is None else prepared | {"test": slices}
        return ExperimentSetting(methods, None, str(datalist), prepared=sections, **options)

    return make


@pytest.fixture
def slices(make_setting):
    """The slices of the test section."""
    return make_setting().slices


@pytest.fixture
def make_method(profile):
    """Function that gives a method of one network, scored by the plain residual."""

    def make(network, label="made", method="ra", scorings=None):
        residual = AnomalyMap("none", equalize=False)
        steps, options = profile.preprocessing, profile.slice_options
        predictor = Predictor(method, network.eval(), residual, steps, options, Path())
        return ComparedMethod(label, predictor, scorings or {"residual": residual})

    return make


@pytest.fixture
def identity(make_method):
    """A method whose map is zero everywhere."""
    return make_method(nn.Identity(), "identity")


@pytest.fixture
def perfect(make_method, slices):
    """A method that gives the healthy slices before they were altered."""
    images = slices[slices.healthy].images
    return make_method(Lookup(images, images), "perfect")


@pytest.fixture
def blur(make_method):
    return make_method(nn.AvgPool2d(5, 1, 2), "blur")


@pytest.fixture
def lookup(make_method, slices, make_setting):
    """Function that gives a method with known maps, differences from the test slices, and maps of
    zero on the calibration slices."""

    def make(maps, label):
        normals = make_setting().slices_of("calibration").images
        images = torch.cat([slices.images, normals])
        return make_method(Lookup(images, torch.cat([slices.images - maps, normals])), label)

    return make


@pytest.fixture
def maps_of():
    """Function that gives the maps of slices by a method with one scoring."""
    return lambda method, slices: method.predict(slices)["residual"].maps


@pytest.fixture
def value():
    """Function that gives one number of a report."""

    def find(report, method, metric, scoring="residual"):
        (found,) = [row for row in report.rows if row[:3] == (method, scoring, metric)]
        return found.value

    return find
