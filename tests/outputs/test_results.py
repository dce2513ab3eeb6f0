"""The files of one scan, whole and by the book."""

import json
import threading
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from template_brains import TO_SCAN

from pathology_screen.errors import InputError
from pathology_screen.outputs import results
from pathology_screen.outputs.record import make_record, schema
from pathology_screen.outputs.results import finished, write_dataset_description, write_result
from pathology_screen.space import SPACE

ENDINGS = {
    *("desc-anomaly_map.nii.gz", "desc-anomaly_map.json", "desc-pseudohealthy_T1w.nii.gz"),
    *("desc-pseudohealthy_T1w.json", "desc-anomaly_dseg.nii.gz", "desc-anomaly_dseg.json"),
    *("panel.png", "report.html", "screening.json"),
}


@pytest.fixture
def refused(make_screener):
    return make_screener()("nowhere.nii.gz")


def written(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_files_of_a_scan(result, tmp_path):
    record = write_result(result, "7", tmp_path)
    assert written(tmp_path) == {f"sub-7/sub-7_{ending}" for ending in ENDINGS}
    assert {f"sub-7/{file}" for file in record["files"]} == written(tmp_path) - {
        "sub-7/sub-7_screening.json"
    }
    assert json.loads((tmp_path / "sub-7/sub-7_screening.json").read_text()) == record


def test_volumes_and_their_sidecars(result, tmp_path):
    write_result(result, "7", tmp_path)
    for suffix, values in (
        ("desc-anomaly_map", result.map_volume),
        ("desc-pseudohealthy_T1w", result.reconstruction_volume),
        ("desc-anomaly_dseg", result.regions_volume),
    ):
        image = nib.load(tmp_path / f"sub-7/sub-7_{suffix}.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), values) and np.allclose(
            image.affine, result.affine
        )
        sidecar = json.loads((tmp_path / f"sub-7/sub-7_{suffix}.json").read_text())
        plane = sidecar["Plane"]
        assert sidecar["Description"] and (plane["space"], plane["z_mm"], plane["fit"]["dice"]) == (
            SPACE,
            23.0,
            0.95,
        )
        assert np.allclose(plane["to_scan"], TO_SCAN, atol=1e-5)
        assert sidecar.get("SkullStripped") == (True if suffix.endswith("T1w") else None)
        for text in ("descrip", "aux_file", "db_name", "intent_name"):
            assert not image.header[text].item().strip(b"\0") if text in image.header else True


def test_a_single_slice_is_said_to_be_one(single, tmp_path):
    write_result(single, "7", tmp_path)
    sidecar = json.loads((tmp_path / "sub-7/sub-7_desc-pseudohealthy_T1w.json").read_text())
    assert (
        sidecar["Plane"] == "a single slice, not registered" and sidecar["SkullStripped"] is False
    )
    assert results.headline(single).endswith("single slice, not registered")


def test_the_record_says_what_the_result_does(result):
    record = make_record(result, "7")
    jsonschema.validate(record, schema())
    assert (record["outcome"], record["score"]) == ("suspicious", result.score)
    assert len(record["regions"]) == len(result.regions)
    assert record["regions"][0]["centroid_mm"] == list(result.regions[0].centroid_mm)


def test_a_refused_scan_has_a_record_and_a_report_alone(refused, tmp_path):
    record = write_result(refused, "7", tmp_path)
    jsonschema.validate(record, schema())
    assert (
        record["outcome"] == "not_assessable"
        and record["code"] == "not_found"
        and record["score"] is None
    )
    assert written(tmp_path) == {"sub-7/sub-7_screening.json", "sub-7/sub-7_report.html"}


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "healthy"},
        {"outcome": "not_assessable"},
        {"score": None},
        {"percentile": 101},
        {"p_value": 0},
        {"slice": None},
        {"patient": "x"},
        {"regions": [{"label": 0}]},
    ],
)
def test_the_schema_refuses_what_makes_no_sense(result, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(make_record(result, "7") | change, schema())


def test_uids_are_hashed_unless_they_have_to_stay(refused):
    from dataclasses import replace

    dicom = replace(refused, source={"format": "dicom", "series_uid": "1.2.3"})
    hashed = make_record(dicom, "7")["source"]["series_uid"]
    assert hashed.startswith("sha256:") and "1.2.3" not in hashed
    assert make_record(dicom, "7", keep_uids=True)["source"]["series_uid"] == "1.2.3"


def test_finished_knows_its_run_and_misses_no_file(result, tmp_path):
    write_result(result, "7", tmp_path, run="a")
    assert finished(tmp_path, "7", "a") == finished(tmp_path, "7")
    assert finished(tmp_path, "7", "b") is None and finished(tmp_path, "8") is None
    (tmp_path / "sub-7/sub-7_panel.png").unlink()
    assert finished(tmp_path, "7", "a") is None
    (tmp_path / "sub-7/sub-7_screening.json").write_text("{")
    assert finished(tmp_path, "7") is None


@pytest.mark.parametrize("step", ["save_volume", "save_panel", "save_report", "save_record"])
def test_a_failed_write_leaves_the_earlier_result_or_none(
    step, result, refused, tmp_path, monkeypatch
):
    def fail(*arguments):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(results, step, fail)
        with pytest.raises(OSError, match="no space"):
            write_result(result, "7", tmp_path)
        assert finished(tmp_path, "7") is None
    assert not list(tmp_path.glob(".*"))
    write_result(result, "7", tmp_path, run="whole")
    assert finished(tmp_path, "7", "whole")


def test_what_another_run_left_goes(result, refused, tmp_path):
    write_result(result, "7", tmp_path)
    write_result(refused, "7", tmp_path)
    assert written(tmp_path) == {"sub-7/sub-7_screening.json", "sub-7/sub-7_report.html"}


def test_two_at_once_do_no_harm(result, tmp_path):
    threads = [
        threading.Thread(target=write_result, args=(result, "7", tmp_path)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written(tmp_path) == {f"sub-7/sub-7_{ending}" for ending in ENDINGS} and finished(
        tmp_path, "7"
    )


def test_dataset_description(tmp_path: Path):
    write_dataset_description(tmp_path)
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert (
        description["BIDSVersion"] and description["GeneratedBy"][0]["Name"] == "pathology_screen"
    )


def test_refusal_codes_are_words():
    assert str(InputError("unexpected_error")).startswith("[unexpected_error]")
