"""What the package is made of: what it declares, what it rests on, and what is known of that."""

import ast
import configparser
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pathology_screen
from pathology_screen import versions as module
from pathology_screen.errors import ArtifactError
from pathology_screen.versions import brain_extraction_sha256, versions

ROOT = Path(__file__).resolve().parents[1]
IMPORTED_AS = {
    "pytorch-ignite": "ignite",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
}
IMPORTED_AS |= {"stlpips-pytorch": "stlpips_pytorch"}
"""Distribution -> package, where the names differ."""
NEVER_IMPORTED = {
    "fire": "the command line of monai.bundle",
    "tensorboard": "torch.utils.tensorboard",
}


def declared(section: str, option: str) -> dict[str, str]:
    """Distribution -> versions."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    names = (
        re.match(r"([A-Za-z0-9-]+)(?:\[.*\])?\s*(.*)", line)
        for line in config[section][option].split("\n")
        if line
    )
    return {name[1]: name[2] for name in names}


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
    required = {IMPORTED_AS.get(name, name) for name in declared("options", "install_requires")}
    optional = {
        IMPORTED_AS.get(name, name).replace("-", "_")
        for extra in ("dicom", "fastmri", "ixi", "label", "plots", "export")
        for name in declared("options.extras_require", extra)
    } | {"umap"}
    assert imported() - required - optional == {"fastapi"}  # which MONAI Label is made of
    assert required - imported() == NEVER_IMPORTED.keys()


def test_torch_is_new_enough_to_read_weights_safely():
    """CVE-2026-24747: before 2.10, weights_only=True could run code."""
    assert declared("options", "install_requires")["torch"].startswith(">= 2.10")


def test_versions_name_the_weights_of_brain_extraction():
    folder = Path(importlib.util.find_spec("deepbet").origin).parents[1] / "data/models"
    digests = [
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("bbox_model.pt", "model.pt")
    ]
    assert brain_extraction_sha256() == hashlib.sha256("".join(digests).encode()).hexdigest()
    assert versions()["brain_extraction_sha256"] == brain_extraction_sha256()
    start = time.perf_counter()
    for _ in range(100):
        brain_extraction_sha256()
    assert time.perf_counter() - start < 0.01  # read once


def test_other_weights_have_another_hash_and_absent_ones_are_an_error(tmp_path, monkeypatch):
    (tmp_path / "data/models").mkdir(parents=True)
    (tmp_path / "deepbet").mkdir()
    spec = importlib.util.spec_from_file_location("deepbet", tmp_path / "deepbet/__init__.py")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ArtifactError, match="not installed"):
        brain_extraction_sha256.__wrapped__()
    hashes = set()
    for content in (b"1", b"2"):
        for name in ("bbox_model.pt", "model.pt"):
            (tmp_path / "data/models" / name).write_bytes(content)
            hashes.add(
                brain_extraction_sha256.__wrapped__()
                if (tmp_path / "data/models/model.pt").exists()
                else name
            )
    assert len(hashes) == 4
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="pip install deepbet"):
        brain_extraction_sha256.__wrapped__()


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


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            'print(\'{"dependencies": [{"name": "a", "skip_reason": "not found"}]}\')',
            "knows none of 1",
        ),
        (
            "import sys; sys.exit('ConnectionError: no route')",
            "nothing was audited: ConnectionError",
        ),
    ],
)
def test_where_no_service_answers_it_says_so_and_goes_on(
    audit, monkeypatch, capsys, output, message
):
    monkeypatch.setattr(audit, "COMMAND", [sys.executable, "-c", output])
    assert audit.main() == 0
    assert message in capsys.readouterr().out


def test_without_pip_audit_it_fails(audit, monkeypatch, capsys):
    monkeypatch.setattr(audit, "COMMAND", [sys.executable, "-m", "no_such_module_as_pip_audit"])
    assert audit.main() == 1


# --- SBOM ---


@pytest.mark.skipif(
    importlib.util.find_spec("cyclonedx_py") is None, reason="cyclonedx-bom is not installed"
)
def test_the_sbom_lists_what_is_installed(tmp_path):
    assert "cyclonedx-py environment --output-file sbom.json" in (ROOT / "SECURITY.md").read_text()
    path = tmp_path / "sbom.json"
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-file", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    document = json.loads(path.read_text())
    found = {
        component["name"].lower(): component["version"] for component in document["components"]
    }
    assert document["bomFormat"] == "CycloneDX" and found["torch"] == versions()["torch"]
    assert {"monai", "numpy", "nibabel", "deepbet"} <= found.keys()
