"""Versions of what a result depends on."""

import importlib.util

import pytest
import torch

import pathology_screen
from pathology_screen import versions as module
from pathology_screen.errors import ArtifactError
from pathology_screen.files import sha256, text_sha256
from pathology_screen.versions import brain_extraction_sha256, versions


def test_versions_are_those_in_use():
    found = versions()
    assert found["pathology_screen"] == pathology_screen.__version__
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["brain_extraction_sha256"] == brain_extraction_sha256()
    assert brain_extraction_sha256.cache_info().misses <= 1  # its files are read once


def test_the_hash_is_that_of_both_weights_and_absent_ones_are_an_error(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("deepbet", tmp_path / "deepbet/__init__.py")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: spec)
    compute, models = brain_extraction_sha256.__wrapped__, tmp_path / "data/models"
    with pytest.raises(ArtifactError, match="not installed"):
        compute()
    models.mkdir(parents=True)
    files = [models / name for name in ("bbox_model.pt", "model.pt")]
    for texts in ("11", "21", "12"):
        for file, text in zip(files, texts):
            file.write_text(text)
        assert compute() == text_sha256("".join(map(sha256, files)))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="pip install deepbet"):
        compute()
