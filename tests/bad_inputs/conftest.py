"""A tree of scans that have to be refused, and limits of time and memory for what looks at them."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from bad_scans import refused_scans

from pathology_screen.cli import main

SECONDS = 15
"""Most that screening one of these scans may take; on an idle machine none takes a second."""
MEMORY = 3 * 2**29
"""Most bytes of address space that it may add: a bomb that goes off runs into it."""


class Wrong(NamedTuple):
    """A scan that has to be refused: where it is, and with which code."""

    path: Path
    code: str


@pytest.fixture(scope="session")
def wrong(tmp_path_factory) -> dict[str, Wrong]:
    """What is wrong -> the scan, all in one tree, each in a folder of its own."""
    tree, found = tmp_path_factory.mktemp("CANARY_JOHN"), {}
    for number, (name, (make, code)) in enumerate(refused_scans().items()):
        folder = tree / f"{number:03}_CANARY_JOHN"
        folder.mkdir()
        found[name] = Wrong(make(folder), code)
    return found


@pytest.fixture
def by_command(make_brain_screener, monkeypatch):
    """Function that runs a command with the tiny screener; gives its exit status."""
    monkeypatch.setattr("pathology_screen.cli._screener", lambda options: make_brain_screener())
    return lambda *arguments: main([str(argument) for argument in arguments])


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where what is done takes too long, or too much memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, hard))
    start = time.perf_counter()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.perf_counter() - start < SECONDS


@pytest.fixture(name="bounded")
def bounded_fixture():
    """Context manager that fails where what is done in it takes too long, or too much memory."""
    return bounded
