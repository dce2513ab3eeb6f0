"""The package's rooms import one way, and the tests mirror them."""

import ast
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
TESTS = Path(__file__).parent
SHORT = 40
"""Most lines of a module that needs no test file of its own."""
OF_A_WHOLE = {
    *("api", "benchmarks", "container", "imports", "supply_chain"),
    *("experiments/command", "networks/every_network"),
    *("label/dicomweb", "label/one_runtime"),
    *(f"outputs/dicom/{name}" for name in ("conformance", "write")),
}
"""Test files, without "test_", of the package or of a room as a whole."""
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


def test_tests_mirror_the_package():
    """`a/b.py` is tested by `tests/a/test_b.py`; a test file beside those of a folder is of one of
    its modules or folders, but for `OF_A_WHOLE`."""
    paths = {path.relative_to(PACKAGE): path for path in PACKAGE.rglob("*.py")}
    untested = {
        place.as_posix()
        for place, path in paths.items()
        if path.name != "__init__.py" and len(path.read_text("utf-8").splitlines()) > SHORT
        if not (TESTS / place.with_name(f"test_{place.name}")).is_file()
    }
    assert not untested
    strays = set()
    for path in TESTS.rglob("test_*.py"):
        named = path.with_name(path.stem.removeprefix("test_")).relative_to(TESTS)
        home = PACKAGE / named
        if home.parent.is_dir() and not (home.with_suffix(".py").is_file() or home.is_dir()):
            strays.add(named.as_posix())
    assert strays == OF_A_WHOLE
