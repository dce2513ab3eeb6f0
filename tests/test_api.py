"""The public names: they exist, are imported on first use, and their examples run."""

import doctest
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pathology_screen

PAGE = Path(__file__).parents[1] / "docs/python.md"
PACKAGE = Path(pathology_screen.__file__).parent
WITH_EXAMPLES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


def in_examples(module: str) -> str:
    """The lines of code in the examples of a module."""
    text = (PACKAGE / module).read_text("utf-8")
    return "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) (.*)", text, re.MULTILINE))


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_run(module):
    parts = ("pathology_screen", *Path(module).with_suffix("").parts)
    found = doctest.testmod(import_module(".".join(parts).removesuffix(".__init__")))
    assert found.attempted and not found.failed


def test_every_public_function_and_class_is_in_an_example():
    examples = "\n".join(map(in_examples, WITH_EXAMPLES))
    named = set(re.findall(r"\w+", examples))
    values = {name: getattr(pathology_screen, name) for name in pathology_screen.__all__}
    wanted = {name for name, value in values.items() if callable(value) and not is_error(value)}
    assert wanted <= named


def is_error(value) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


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
