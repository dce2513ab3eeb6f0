"""What it costs to refuse a scan."""

import importlib

import pytest
from limits import cheap

from pathology_screen.errors import InputError
from pathology_screen.io import read_scan


@pytest.fixture
def refusal():
    """Function that reads a scan which has to be refused, and gives the refusal."""

    def refuse(path, **options):
        with pytest.raises(InputError) as caught:
            read_scan(path, **options)
        return caught.value

    return refuse


@pytest.fixture
def cheap_refusal(refusal):
    """The same, after a check that it took neither long nor much memory."""

    importlib.import_module("highdicom")  # takes a minute while memory is traced

    def refuse(path):
        with cheap():
            return refusal(path)

    return refuse
