"""Versions of what a result depends on."""

import hashlib
import importlib.util
import time
from pathlib import Path

import pytest
import torch

import pathology_screen
from pathology_screen import versions as module
from pathology_screen.errors import ArtifactError
from pathology_screen.files import sha256
from pathology_screen.versions import brain_extraction_sha256, versions


def test_versions_name_the_weights_of_brain_extraction():
    folder = Path(importlib.util.find_spec("deepbet").origin).parents[1] / "data/models"
    digests = [sha256(folder / name) for name in ("bbox_model.pt", "model.pt")]
    assert brain_extraction_sha256() == hashlib.sha256("".join(digests).encode()).hexdigest()
    assert versions()["brain_extraction_sha256"] == brain_extraction_sha256()
    start = time.perf_counter()
    for _ in range(100):
        brain_extraction_sha256()
    assert time.perf_counter() - start < 0.01  # read once


def test_other_weights_have_another_hash_and_absent_ones_are_an_error(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("deepbet", tmp_path / "deepbet/__init__.py")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ArtifactError, match="not installed"):
        brain_extraction_sha256.__wrapped__()
    (tmp_path / "deepbet").mkdir()
    (tmp_path / "data/models").mkdir(parents=True)
    hashes = set()
    for first, second in ("11", "21", "12"):
        (tmp_path / "data/models/bbox_model.pt").write_text(first)
        (tmp_path / "data/models/model.pt").write_text(second)
        hashes.add(brain_extraction_sha256.__wrapped__())
    assert len(hashes) == 3
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="pip install deepbet"):
        brain_extraction_sha256.__wrapped__()


def test_versions_are_those_in_use():
    assert versions()["pathology_screen"] == pathology_screen.__version__
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
