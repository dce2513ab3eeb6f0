"""A small cohort of drawn slices, and networks made by hand that know the answer or nothing."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from slice_cohort import make_slice_cohort
from torch import nn

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.experiments import Setting
from pathology_screen.experiments.models import ComparedMethod, read_profile
from pathology_screen.registry import METHODS


class Lookup(nn.Module):
    """Answers each known image (1, H, W) with a picture of its own."""

    def __init__(self, images, answers):
        super().__init__()
        self.answers = {key(image): answer for image, answer in zip(images, answers)}

    def forward(self, x):
        return torch.stack([self.answers[key(image)] for image in x])


def key(image):
    return hashlib.sha256(image.numpy().tobytes()).hexdigest()


@pytest.fixture(scope="session")
def datalist(tmp_path_factory) -> Path:
    """Datalist of two training, two calibration and eight test slices: three healthy, then each
    finding once."""
    return make_slice_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def items(datalist):
    """The test section as it stands in the datalist, with the paths of its files."""
    section = json.loads(datalist.read_text())["test"]
    paths = {"image", "label"}
    return [
        {k: str(datalist.parent / v) if k in paths else v for k, v in item.items()}
        for item in section
    ]


@pytest.fixture(scope="session")
def prepared():
    """The slices of each section, prepared once for all settings."""
    return {}


@pytest.fixture
def make_setting(datalist, prepared):
    """Function that gives a setting on the cohort with methods made by hand."""

    def make(*models, **options):
        configured = (read_profile(), list(models)) if models else None
        methods = options.pop("methods", ("template",))
        return Setting(
            methods, datalist=str(datalist), **options, configured=configured, prepared=prepared
        )

    return make


@pytest.fixture
def make_model():
    """Function that gives a method of one network, scored by the plain residual."""

    def make(network, label="made", method="ra", **scorings):
        return ComparedMethod(
            label, METHODS[method], network.eval(), scorings or {"residual": residual()}
        )

    return make


@pytest.fixture
def identity(make_model):
    """A method whose map is zero everywhere."""
    return make_model(nn.Identity(), "identity")


@pytest.fixture
def lookup():
    """The class `Lookup`."""
    return Lookup


def residual():
    return AnomalyMap("none", equalize=False)


def row(report, method, metric, scoring="residual"):
    (found,) = [
        row
        for row in report.rows
        if (row.method, row.scoring, row.metric) == (method, scoring, metric)
    ]
    return found


@pytest.fixture
def value():
    """Function that gives one number of a report."""
    return lambda report, method, metric, scoring="residual": (
        row(report, method, metric, scoring).value
    )
