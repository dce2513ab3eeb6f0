"""A tree of scans that have to be refused."""

from pathlib import Path

import pytest
from bad_scans import REFUSED

from pathology_screen.cli import main


@pytest.fixture(scope="session")
def wrong(tmp_path_factory) -> dict[str, tuple[Path, str]]:
    """What is wrong -> where the scan is, all in one tree, each in a folder of its own, and the
    code with which it has to be refused."""
    tree, found = tmp_path_factory.mktemp("CANARY_JOHN"), {}
    for number, (name, (make, code)) in enumerate(REFUSED.items()):
        folder = tree / f"{number:03}_CANARY_JOHN"
        folder.mkdir()
        found[name] = make(folder), code
    return found


@pytest.fixture
def by_command(make_brain_screener, monkeypatch):
    """Function that runs a command with the tiny screener; gives its exit status."""
    monkeypatch.setattr("pathology_screen.cli._screener", lambda options: make_brain_screener())
    return lambda *arguments: main([str(argument) for argument in arguments])
