"""One small phantom cohort and one synthetic person for all tests of this folder."""

from functools import cache
from pathlib import Path

import pytest
from cohorts.simulated import SEED

from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.simulation import simulate

SMALL = {"training": 2, "validation": 1, "calibration": 1, "healthy": 1, "lesions": 5}


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """Datalist of four slices and six volumes, every kind of lesion once."""
    return make_phantom_cohort(tmp_path_factory.mktemp("cache"), **SMALL)


@pytest.fixture(scope="session")
def healthy():
    return simulate(load_template(), SEED)


@pytest.fixture(scope="session")
def ill():
    """Function: kind of lesion -> the same person with it."""
    return cache(lambda kind: simulate(load_template(), SEED, kind))
