"""The record of a scan, and its schema."""

import json
from dataclasses import replace
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from pathology_screen.errors import InputError
from pathology_screen.outputs.record import make_record
from pathology_screen.result import Finding, ScanContext
from pathology_screen.space import SPACE

SCHEMA = json.loads((files("pathology_screen.outputs") / "screening.schema.json").read_text())
CHECK = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_describes_every_kind_of_record(result, single, brain, make_brain_screener):
    calm = make_brain_screener(scores=tuple(range(1, 21)))
    finding = Finding("voxel_size", "9 mm", "up to 8 mm", hint="Resample it")
    refusal = InputError("voxel_size", "9 mm")
    results = {
        "suspicious": result,
        "normal": calm(brain),
        "not_calibrated": calm(brain, plane_mm=30),
        "not_found": calm("nowhere"),
        "voxel_size": calm.judge.refuse(refusal, ScanContext(findings=[finding])),
    }
    for kind, one in results.items():
        record = make_record(one, "P001")
        CHECK.validate(record)
        assert kind in (record["outcome"], record["code"]) and record["name"] == "P001"
    CHECK.validate(make_record(single, "P001"))
    assert make_record(result) | {"name": "x"} == make_record(result, "x")


NONSENSE = [
    *({"outcome": outcome} for outcome in ("healthy", "not_assessable")),
    *({"score": None}, {"percentile": 101}, {"p_value": 0}, {"slice": None}),
    *({"patient": "x"}, {"regions": [{"label": 0}]}),
]


def test_the_schema_refuses_what_makes_no_sense(result):
    record = make_record(result, "7")
    assert not [change for change in NONSENSE if CHECK.is_valid(record | change)]


def test_a_record_says_what_was_measured_and_where(result, single):
    record = make_record(result, "P001")
    assert (record["outcome"], record["score"]) == ("suspicious", result.score)
    fit = {"dice": 0.95, "correlation": 0.75, "turn": 0.0, "shown": 1.0}
    assert record["slice"] == {"score": result.score, "space": SPACE, "plane_mm": 23.0, "fit": fit}
    for told, region in zip(record["regions"], result.regions, strict=True):
        for key in ("label", "side", "tissue"):
            assert told[key] == getattr(region, key)
        for key in ("peak_mni_mm", "centroid_mm", "centroid_mni_mm"):
            assert told[key] == list(getattr(region, key))
    scores = record["provenance"]["healthy"]["scores"]
    assert record["healthy_range"] == np.percentile(scores, [5, 95]).tolist()
    assert record["intended_use"].startswith("Research only")
    alone = make_record(single, "P002")
    assert alone["slice"] == {"score": single.score, "space": None, "plane_mm": None, "fit": None}
    nowhere = {(one["side"], one["peak_mni_mm"], one["tissue"]) for one in alone["regions"]}
    assert nowhere == {(None, None, None)}


def test_a_series_uid_is_written_only_where_it_is_wanted(result):
    one, other = (replace(result, source={"format": "dicom", "series_uid": u}) for u in "12")
    hashed, another = (make_record(each, "P")["source"]["series_uid"] for each in (one, other))
    assert hashed.startswith("sha256:") and hashed != another
    assert make_record(one, "P", keep_uids=True)["source"]["series_uid"] == "1"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_json_has_no_nan(value, result):
    with pytest.raises(ValueError, match="JSON"):
        make_record(replace(result, provenance={"nested": [value]}), "P")
