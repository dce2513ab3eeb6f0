"""A tree of scans that have to be refused."""

from pathlib import Path
from typing import NamedTuple

import pytest
from bad_scans import refused_scans

from pathology_screen.cli import main


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
