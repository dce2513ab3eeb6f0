"""The public names: they exist, are imported on first use, and their examples run."""

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pathology_screen

PAGE = Path(__file__).parents[1] / "docs/python.md"


def test_the_examples_run():
    found = doctest.testmod(pathology_screen)
    assert found.attempted > 10 and found.failed == 0


@pytest.mark.parametrize("name", pathology_screen.__all__)
def test_every_public_name_is_there_explained_and_on_the_page(name):
    assert name in dir(pathology_screen) and f"`{name}`" in PAGE.read_text("utf-8")
    assert inspect.getdoc(getattr(pathology_screen, name))


def test_another_name_is_none():
    with pytest.raises(AttributeError, match="has no attribute 'Screeners'"):
        _ = pathology_screen.Screeners


def test_importing_the_package_is_quick():
    code = "import sys, time; start = time.process_time(); import pathology_screen\n"
    code += "print(time.process_time() - start, 'torch' in sys.modules, 'numpy' in sys.modules)"
    runs = [subprocess.check_output([sys.executable, "-c", code], text=True).split() for _ in "abc"]
    assert min(float(run[0]) for run in runs) < 0.05
    assert all(run[1:] == ["False", "False"] for run in runs)
