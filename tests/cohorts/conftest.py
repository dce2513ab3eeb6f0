"""One small phantom cohort for all tests of this folder."""

from pathlib import Path

import pytest

from pathology_screen.cohorts import make_phantom_cohort


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """Datalist of four slices and six volumes, every kind of lesion once."""
    numbers = {"training": 2, "validation": 1, "calibration": 1, "healthy": 1, "lesions": 5}
    return make_phantom_cohort(tmp_path_factory.mktemp("cache"), **numbers)
