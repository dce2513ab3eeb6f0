"""The files of one scan, whole and by the book."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from template_brains import TO_SCAN

from pathology_screen.errors import RunError
from pathology_screen.outputs.results import finished, save_volume, write_result
from pathology_screen.space import SPACE

ENDINGS = {
    *("desc-anomaly_map.nii.gz", "desc-anomaly_map.json", "desc-pseudohealthy_T1w.nii.gz"),
    *("desc-pseudohealthy_T1w.json", "desc-anomaly_dseg.nii.gz", "desc-anomaly_dseg.json"),
    *("panel.png", "report.html", "screening.json"),
}
FILES = {f"sub-7/sub-7_{ending}" for ending in ENDINGS}
RECORD, REPORT = "sub-7/sub-7_screening.json", "sub-7/sub-7_report.html"


@pytest.fixture
def refused(make_screener):
    return make_screener()("nowhere.nii.gz")


def written(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def sidecar(folder, suffix):
    return json.loads((folder / f"sub-7/sub-7_{suffix}.json").read_text())


def test_files_of_a_scan(result, tmp_path):
    record = write_result(result, "7", tmp_path)
    assert written(tmp_path) == FILES
    assert {f"sub-7/{file}" for file in record["files"]} == FILES - {RECORD}
    assert json.loads((tmp_path / RECORD).read_text()) == record
    for suffix, values in (
        ("desc-anomaly_map", result.map_volume),
        ("desc-pseudohealthy_T1w", result.reconstruction_volume),
        ("desc-anomaly_dseg", result.regions_volume),
    ):
        image = nib.load(tmp_path / f"sub-7/sub-7_{suffix}.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), values)
        assert np.allclose(image.affine, result.affine)
        told = sidecar(tmp_path, suffix)
        plane = told["Plane"]
        assert (plane["space"], plane["z_mm"], plane["fit"]["dice"]) == (SPACE, 23.0, 0.95)
        assert np.allclose(plane["to_scan"], TO_SCAN, atol=1e-5)
        assert told["Description"]
        assert told.get("SkullStripped") == (True if suffix.endswith("T1w") else None)


def test_a_single_slice_is_said_to_be_one(single, tmp_path):
    write_result(single, "7", tmp_path)
    told = sidecar(tmp_path, "desc-pseudohealthy_T1w")
    assert told["Plane"] == "a single slice, not registered" and told["SkullStripped"] is False


def test_the_result_of_another_scan_stays(refused, tmp_path):
    write_result(refused, "7", tmp_path, source_id="a" * 20)
    with pytest.raises(RunError, match="another scan"):
        write_result(refused, "7", tmp_path, source_id="b" * 20)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": 1}', '{"files": [1]}'])
def test_finished_knows_its_run_misses_no_file_and_takes_no_other_text(text, refused, tmp_path):
    write_result(refused, "7", tmp_path, run="a")
    assert finished(tmp_path, "7", "a") == finished(tmp_path, "7")
    assert finished(tmp_path, "7", "b") is None and finished(tmp_path, "8") is None
    (tmp_path / REPORT).unlink()
    assert finished(tmp_path, "7", "a") is None
    (tmp_path / RECORD).write_text(text)
    assert finished(tmp_path, "7") is None


def test_two_at_once_do_no_harm(result, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        for write in [pool.submit(write_result, result, "7", tmp_path) for _ in range(4)]:
            write.result()
    assert written(tmp_path) == FILES and finished(tmp_path, "7")


@pytest.mark.parametrize("name", ["map.nii.gz", "map.nii"])
@settings(max_examples=20, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-30, 30)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_values_and_geometry_of_a_volume_come_back_and_no_text(
    name, angles, spacing, origin, tmp_path_factory
):
    """To a thousandth of a millimetre, however oblique."""
    affine, path = np.eye(4), tmp_path_factory.mktemp("volume") / name
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = origin
    values = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    save_volume(values, affine, path)
    image = nib.load(path)
    header = image.header
    assert image.get_data_dtype() == np.float32 and header.get_xyzt_units()[0] == "mm"
    assert np.array_equal(np.asarray(image.dataobj), values)
    assert np.allclose(image.affine, affine, atol=1e-3) and header["sform_code"] > 0
    assert np.isnan(header["scl_slope"]) or header["scl_slope"] in (0, 1)
    texts = ("descrip", "aux_file", "intent_name", "db_name")
    assert not any(header[field].tobytes().strip(b"\0") for field in texts)
    assert not header.extensions


@pytest.mark.parametrize(("given", "kept"), [("int32", "uint16"), ("bool", "float32")])
def test_labels_stay_whole_numbers_all_else_is_float32_and_bytes_are_the_same(
    given, kept, tmp_path
):
    values = np.arange(24).reshape(2, 3, 4).astype(given)
    for name in ("a.nii.gz", "b.nii.gz"):
        save_volume(values, np.eye(4), tmp_path / name)
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == kept
    assert np.array_equal(np.asarray(image.dataobj), values)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    with gzip.open(tmp_path / "a.nii.gz") as file:
        file.read()
        assert file.mtime == 0
