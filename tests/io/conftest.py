"""What it costs to refuse a scan."""

import importlib
import time
import tracemalloc

import pytest

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
        start = time.perf_counter()
        tracemalloc.start()
        try:
            error = refusal(path)
            assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
        finally:
            tracemalloc.stop()
        assert time.perf_counter() - start < 10
        return error

    return refuse
