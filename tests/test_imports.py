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
    {"metrics"},
    {"predictor"},
    {"engines"},
    {"calibration"},
    {"cohorts"},
    {"result"},
    {"outputs"},
    {"screening"},
    {"experiments"},
    {"catalogue", "demo", "exporting", "publishing"},
    {"calibration.folder"},
    {"label"},
    {"cli"},
]
"""Of the package's rooms, each imports from those above it alone. One file stands apart from its
room: `calibration.folder` fits on scans, past the acceptance gate."""
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def place(module: str) -> str:
    """The entry of `LEVEL` that a module, or a name in it, belongs to."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if ".".join(parts[:2]) in LEVEL else parts[0]


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }


def test_every_room_has_its_place():
    assert {place(name) for name in modules()} - {"__init__"} == LEVEL.keys()


def test_imports_go_one_way():
    wrong = []
    for module, path in modules().items():
        room = place(module)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                if not name.startswith("pathology_screen.") or place(name) not in LEVEL:
                    continue
                if place(name) != room and LEVEL[place(name)] >= LEVEL[room]:
                    wrong.append(f"{path.name} imports {name}")
    assert not wrong


def test_importing_the_package_and_its_command_brings_no_torch():
    code = "import sys, pathology_screen.cli; print('torch' in sys.modules, 'monai' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]
