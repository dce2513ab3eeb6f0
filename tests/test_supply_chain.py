"""What the package is made of: what it declares, what it rests on, and what is known of that."""

import ast
import configparser
import importlib.util
import re
import sys
from pathlib import Path

import pytest

import pathology_screen

ROOT = Path(__file__).resolve().parents[1]
IMPORTED_AS = {
    "pytorch-ignite": "ignite",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "umap-learn": "umap",
}
"""Distribution -> package, where the names differ in more than a dash."""
NEVER_IMPORTED = {"fire", "tensorboard"}
"""The command line of monai.bundle, and torch.utils.tensorboard."""


def declared(section: str, option: str) -> dict[str, str]:
    """Package -> versions."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = filter(None, config[section][option].split("\n"))
    found = (re.match(r"([A-Za-z0-9-]+)(?:\[.*\])?\s*(.*)", line) for line in lines)
    return {IMPORTED_AS.get(name[1], name[1].replace("-", "_")): name[2] for name in found}


def imported() -> set[str]:
    """Packages of other people that the package imports, or looks up."""
    found = set()
    for path in Path(pathology_screen.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "find_spec":
                names += [node.args[0].value]
            found |= {name.partition(".")[0] for name in names}
    return found - {"pathology_screen"} - set(sys.stdlib_module_names)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    required = declared("options", "install_requires").keys()
    extras = ("dicom", "fastmri", "ixi", "label", "plots", "export")
    optional = set().union(*(declared("options.extras_require", extra) for extra in extras))
    assert imported() - required - optional == {"fastapi"}  # which MONAI Label is made of
    assert required - imported() == NEVER_IMPORTED


def test_torch_is_new_enough_to_read_weights_safely():
    """CVE-2026-24747: before 2.10, weights_only=True could run code."""
    assert declared("options", "install_requires")["torch"].startswith(">= 2.10")


# --- pip-audit ---


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci/audit.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


VULNERABLE = {
    "name": "torch",
    "version": "2.9.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2026-24747"], "fix_versions": ["2.10"]}],
}


def test_a_known_vulnerability_fails_unless_it_is_excepted(audit):
    sound = {"name": "numpy", "version": "2", "vulns": []}
    assert audit.judge([sound], {}) == (0, "1 of 1 packages audited")
    status, text = audit.judge([sound, VULNERABLE], {})
    assert status == 1 and "torch 2.9.0: PYSEC-1, mended in 2.10" in text
    status, text = audit.judge([VULNERABLE], {"CVE-2026-24747": "no weights are read"})
    assert status == 0 and "excepted: no weights are read" in text


NONE_KNOWN = """print('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}')"""
NO_ROUTE = "import sys; sys.exit('ConnectionError: no route')"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-c", NONE_KNOWN], 0, "knows none of 1"),
        (["-c", NO_ROUTE], 0, "nothing was audited: ConnectionError"),
        (["-m", "no_such_module_as_pip_audit"], 1, "pip-audit is not installed"),
    ],
)
def test_where_no_service_answers_it_says_so_and_goes_on(
    audit, monkeypatch, capsys, arguments, status, message
):
    monkeypatch.setattr(audit, "COMMAND", [sys.executable, *arguments])
    assert audit.main() == status
    assert message in capsys.readouterr().out
