"""Scans that have to be refused, and what this may cost."""

import resource
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import highdicom  # noqa: F401  # takes a minute while memory is traced
import pytest

from pathology_screen.errors import REFUSALS, InputError
from pathology_screen.io import read_scan

SECONDS = 15
"""Most that screening one of these scans may take; on an idle machine none takes a second."""
MEMORY = 3 * 2**29
"""Most bytes of address space that it may add: a bomb that goes off runs into it."""


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Fail where what is done takes too long, or too much memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, hard))
    start = time.perf_counter()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.perf_counter() - start < seconds


@contextmanager
def cheap() -> Iterator[None]:
    """The same, of the memory that Python knows of; on an idle machine nothing takes half a
    second."""
    tracemalloc.start()
    try:
        with bounded(10):
            yield
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def refusal(path: Path, **options: object) -> InputError:
    """The refusal of a scan, after checking that neither it nor its traceback repeats the patient's
    data or a path."""
    with pytest.raises(InputError) as caught:
        read_scan(path, **options)
    text = "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in text and str(path.parent) not in str(caught.value)
    assert caught.value.code in REFUSALS
    return caught.value
