"""A tiny phantom cohort, and networks made by hand that know the answer or nothing."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.experiments import Setting
from pathology_screen.experiments.models import Model, read_profile
from pathology_screen.registry import METHODS

SMALL = {"training": 2, "validation": 0, "calibration": 2, "healthy": 3, "lesions": 5, "extracted": True}


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
def phantom(tmp_path_factory) -> Path:
    """Datalist of four slices and eight volumes; each kind of lesion once."""
    return make_phantom_cohort(tmp_path_factory.mktemp("cache"), **SMALL)


@pytest.fixture(scope="session")
def items(phantom):
    """The test section as it stands in the datalist, with the paths of its files."""
    section = json.loads(phantom.read_text())["test"]
    paths = {"image", "label"}
    return [{k: str(phantom.parent / v) if k in paths else v for k, v in item.items()} for item in section]


@pytest.fixture(scope="session")
def prepared():
    """The slices of each section, prepared once for all settings: every -> section -> slices."""
    return {}


@pytest.fixture
def make_setting(phantom, prepared):
    """Function that gives a setting on the tiny cohort with models made by hand."""

    def make(*models, **options):
        known = prepared.setdefault(options.get("every"), {})
        configured = (read_profile(), list(models)) if models else None
        methods = options.pop("methods", ("template",))
        return Setting(methods, datalist=str(phantom), **options, configured=configured, prepared=known)

    return make


@pytest.fixture
def make_model():
    """Function that gives a model of one network, scored by the plain residual."""

    def make(network, label="made", method="ra", **scorings):
        return Model(label, METHODS[method], {None: network.eval()}, scorings or {"residual": residual()})

    return make


@pytest.fixture
def identity(make_model):
    """A model whose map is zero everywhere."""
    return make_model(nn.Identity(), "identity")


@pytest.fixture
def lookup():
    """The class `Lookup`."""
    return Lookup


def residual():
    return AnomalyMap("none", equalize=False)


def row(report, method, metric, scoring="residual"):
    (found,) = [row for row in report.rows if (row.method, row.scoring, row.metric) == (method, scoring, metric)]
    return found


@pytest.fixture
def value():
    """Function that gives one number of a report."""
    return lambda report, method, metric, scoring="residual": row(report, method, metric, scoring).value
