import json

import pytest

import pathology_screen
from pathology_screen.outputs.record import save_record
from pathology_screen.versions import versions


def test_a_record_comes_back(tmp_path):
    record = {"score": 0.1 + 0.2, "name": "Größe", "nested": {"list": [1, None, True]}}
    save_record(record, tmp_path / "scan.json")
    assert json.loads((tmp_path / "scan.json").read_text(encoding="utf-8")) == record


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_nan(value, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_record({"score": {"nested": [value]}}, tmp_path / "scan.json")
    assert not list(tmp_path.iterdir())


def test_what_json_cannot_hold_leaves_the_old_record(tmp_path):
    save_record({"score": 1}, tmp_path / "scan.json")
    with pytest.raises(TypeError):
        save_record({"score": object()}, tmp_path / "scan.json")
    assert json.loads((tmp_path / "scan.json").read_text()) == {"score": 1} and len(list(tmp_path.iterdir())) == 1


def test_versions_are_those_in_use():
    torch = pytest.importorskip("torch")
    assert versions()["pathology_screen"] == pathology_screen.__version__
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
