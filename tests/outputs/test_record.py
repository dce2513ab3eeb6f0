import json
from dataclasses import replace

import jsonschema
import pytest

import pathology_screen
from pathology_screen.errors import InputError
from pathology_screen.outputs.record import make_record, save_record, schema
from pathology_screen.screening import Finding
from pathology_screen.space import SPACE
from pathology_screen.versions import versions


def check(record):
    """Raise where a record is not as its schema says."""
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(record)))


def test_the_schema_describes_every_kind_of_record(result, single, brain, make_brain_screener):
    calm = make_brain_screener(scores=tuple(range(1, 21)))
    finding = Finding("voxel_size", "9 mm", "up to 8 mm", hint="Resample it")
    results = {
        "suspicious": result,
        "normal": calm(brain),
        "not_calibrated": calm(brain, plane_mm=30),
        "not_found": calm("nowhere"),
        "voxel_size": calm.judge.refuse(InputError("voxel_size", "9 mm"), findings=[finding]),
    }
    for kind, one in results.items():
        record = make_record(one, "P001")
        check(record)
        assert kind in (record["outcome"], record["code"]) and record["name"] == "P001"
    check(make_record(single, "P001"))
    assert not jsonschema.Draft202012Validator(schema()).is_valid(
        make_record(replace(result, outcome="healthy"), "x")
    )
    assert not jsonschema.Draft202012Validator(schema()).is_valid(
        make_record(replace(result, score=None), "x")
    )


def test_a_record_says_what_was_measured_and_where(result, single):
    record = make_record(result, "P001")
    fit = {"dice": 0.95, "correlation": 0.75, "turn": 0.0, "shown": 1.0}
    assert record["slice"] == {"score": result.score, "space": SPACE, "plane_mm": 23.0, "fit": fit}
    assert [region["label"] for region in record["regions"]] == [
        region.label for region in result.regions
    ]
    assert {region["side"] for region in record["regions"]} <= {"left", "right", "midline"}
    assert record["regions"][0]["peak_mni_mm"] == list(result.regions[0].peak_mni_mm)
    assert record["intended_use"].startswith("Research only")
    alone = make_record(single, "P002")
    assert alone["slice"] == {"score": single.score, "space": None, "plane_mm": None, "fit": None}
    assert {(region["side"], region["peak_mni_mm"]) for region in alone["regions"]} == {
        (None, None)
    }


def test_a_series_uid_is_written_only_where_it_is_wanted(result):
    result = replace(result, source={"format": "dicom", "series_uid": "1.2.3"})
    hashed = make_record(result, "P001")["source"]["series_uid"]
    assert hashed.startswith("sha256:") and "1.2.3" not in hashed
    assert (
        hashed
        != make_record(replace(result, source={"series_uid": "1.2.4"}), "P001")["source"][
            "series_uid"
        ]
    )
    assert make_record(result, "P001", keep_uids=True)["source"]["series_uid"] == "1.2.3"


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
    assert (
        json.loads((tmp_path / "scan.json").read_text()) == {"score": 1}
        and len(list(tmp_path.iterdir())) == 1
    )


def test_versions_are_those_in_use():
    torch = pytest.importorskip("torch")
    assert versions()["pathology_screen"] == pathology_screen.__version__
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
