"""MONAI Label's environment has no highdicom: it is imported here and where DICOM is read, and
nowhere else."""

import ast
from pathlib import Path

import pathology_screen

PACKAGE = Path(pathology_screen.__file__).parent
MAY = {PACKAGE / "outputs" / "dicom", PACKAGE / "io"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_highdicom_is_imported_where_dicom_is_read_or_written():
    elsewhere = [path for path in PACKAGE.rglob("*.py") if not MAY & set(path.parents)]
    assert elsewhere
    users = [
        path.name
        for path in elsewhere
        if any(name.split(".")[0] == "highdicom" for name in imported(path))
    ]
    assert not users


def test_the_other_outputs_do_not_import_the_dicom_outputs():
    for path in (PACKAGE / "outputs").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        top = {
            name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for name in [node.module or ""]
        }
        assert not [name for name in top if name.startswith("pathology_screen.outputs.dicom")], (
            path.name
        )
