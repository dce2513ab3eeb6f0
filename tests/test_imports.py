"""The package's rooms import one way, and importing the package stays cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pathology_screen

PACKAGE = Path(pathology_screen.__file__).parent
ORDER = [
    {"errors"},
    {"files", "pages", "registry"},
    {"bundles", "geometry", "versions"},
    {"io"},
    {"space"},
    {"transforms"},
    {"losses", "synthetic"},
    {"networks"},
    {"anomaly"},
    {"metrics", "calibration"},
    {"predictor"},
    {"engines"},
    {"cohorts"},
    {"result"},
    {"outputs"},
    {"screening"},
    {"experiments"},
    {"publishing"},
    {"local_calibration"},
    {"label"},
    {"cli"},
]
"""Of the package's rooms, each imports from those above it alone."""
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def test_every_room_has_its_place():
    rooms = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")
    }
    assert rooms - {"__init__"} == LEVEL.keys()


def test_imports_go_one_way():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == "pathology_screen":
                names += [
                    f"pathology_screen.{alias.name}" for alias in node.names if alias.name in LEVEL
                ]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            for name in names:
                parts = name.split(".")
                if len(parts) < 2 or parts[0] != "pathology_screen" or parts[1] == room:
                    continue
                if LEVEL[parts[1]] >= LEVEL[room]:
                    wrong.append(f"{path.name} imports {name}")
    assert not wrong


def test_importing_the_package_and_its_command_brings_no_torch():
    code = "import sys, pathology_screen.cli; print('torch' in sys.modules, 'monai' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]
