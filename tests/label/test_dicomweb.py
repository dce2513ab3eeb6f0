"""MONAI Label on a real Orthanc: query, infer, worklist, and regions as a DICOM SEG."""

import json
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
from orthanc import running_orthanc, what_is_missing
from scan_builders import save, series_of
from scipy.spatial import cKDTree
from servers import ACROSS, NO_SCORING, RATE, nifti, parts, running_server

from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.label.app_folder import write_app

LABEL_INFO = [
    {"name": "anomaly", "description": "unlike healthy people", "model_name": "pathology_screen"}
]

pytestmark = pytest.mark.label


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Name -> UID and folder: a phantom with a lesion, and the same with a contrast agent or
    without a slice."""
    few = {"training": 0, "validation": 0, "calibration": 0, "healthy": 0, "lesions": 1}
    cohort = make_phantom_cohort(tmp_path_factory.mktemp("cohort"), **few)
    (item,) = json.loads(cohort.read_text())["test"]
    lesion = nib.as_closest_canonical(nib.load(cohort.parent / item["image"]))
    kinds = {"contrast": {"ContrastBolusAgent": "gadolinium"}, "gap": {}, "plain": {}}
    found = {}
    for number, (name, attributes) in enumerate(kinds.items()):
        uid = f"2.25.{number + 1}"
        datasets = series_of(lesion, series_uid=uid, PatientID=f"CANARY-{name}", **attributes)
        if name == "gap":
            del datasets[5]
        found[name] = uid, save(datasets, tmp_path_factory.mktemp(name), "{}.dcm".format)
    return found


@pytest.fixture(scope="module")
def orthanc(series, tmp_path_factory):
    if reason := what_is_missing():
        pytest.skip(reason)
    with running_orthanc(tmp_path_factory.mktemp("orthanc") / "run") as orthanc:
        for _, folder in series.values():
            upload(orthanc, folder.iterdir())
        yield orthanc


def upload(orthanc, files) -> None:
    for file in sorted(files):
        orthanc.get("/instances", "POST", "--data-binary", f"@{file}")


@pytest.fixture(params=["phantom", pytest.param("real", marks=pytest.mark.needs_shared)])
def scan(request, series, orthanc):
    """UID and folder of a series that Orthanc has: a phantom, or real files at hand."""
    if request.param == "phantom":
        return series["plain"]
    folder = request.getfixturevalue("shared_data") / "dicom_hanke_t1"
    upload(orthanc, folder.glob("*.dcm"))
    return highdicom.imread(next(folder.glob("*.dcm"))).SeriesInstanceUID, folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The server's."""
    return tmp_path_factory.mktemp("label")


@pytest.fixture(scope="module")
def server(orthanc, tiny, folder):
    app = write_app(folder / "app").parent
    (folder / "temporary").mkdir()
    places = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": "cache", "TMPDIR": "temporary"}
    settings = NO_SCORING | {name: str(folder / place) for name, place in places.items()}
    studies = "http://127.0.0.1:8042/dicom-web"
    conf = {"models": str(tiny), "rate": str(RATE), "device": "cpu"}
    with running_server(app, studies, folder / "log", conf, settings, orthanc.inside) as server:
        yield server


def test_the_server_finds_the_series_in_orthanc_and_gives_them_by_suspicion(
    server, series, screener, folder
):
    uids = {name: uid for name, (uid, _) in series.items()}
    assert server.json("/info/")["datastore"]["total"] == len(series)
    unknown = server.next_study()
    assert (unknown["id"], unknown["unread"], unknown["waiting"]) == (uids["contrast"], 3, 3)
    assert not list(folder.glob("temporary/*.nii.gz"))  # no copy of what was fetched for the reader

    expected = screener(series["plain"][1])
    counts = server.json("/scoring/tiny_screening?run_sync=true", "POST")
    assert counts == {"not_assessable": 2, expected.outcome: 1}
    first, second = server.next_study(), server.next_study()
    assert (first["id"], first["outcome"], first["waiting"]) == (uids["plain"], expected.outcome, 0)
    assert first["score"] == pytest.approx(expected.score, rel=ACROSS)
    assert (second["id"], second["code"]) == (uids["gap"], "missing_slice")


def test_a_series_is_screened_as_its_files_are(server, scan, screener, tmp_path):
    uid, folder = scan
    expected = screener(folder)
    answer = parts(server.infer("tiny_anomaly_map", uid, "all"))
    record = json.loads(answer["params"])
    assert record["outcome"] == expected.outcome
    assert record["score"] == pytest.approx(expected.score, rel=ACROSS)
    assert record["percentile"] == expected.percentile
    codes = [finding.code for finding in expected.findings]
    assert [finding["code"] for finding in record["findings"]] == codes
    anomaly_map = nifti(answer["image"], tmp_path / "map.nii.gz")
    assert anomaly_map.get_data_dtype() == np.float32
    np.testing.assert_allclose(anomaly_map.affine, expected.affine, atol=1e-4)
    lit = expected.map_volume > 0
    difference = np.abs(anomaly_map.get_fdata() - expected.map_volume)[lit]
    assert difference.mean() < 5 * ACROSS * expected.map_volume[lit].mean()


def test_what_headers_and_positions_tell_refuses_a_series(server, series):
    for name, code in (("contrast", "contrast_agent"), ("gap", "missing_slice")):
        status, detail = server.refusal("tiny_anomaly_map", series[name][0])
        assert status == 422 and f"[{code}]" in detail


def test_regions_go_back_to_orthanc_as_a_segmentation(server, orthanc, scan, screener, tmp_path):
    uid, folder = scan
    regions, expected = tmp_path / "regions.nii.gz", screener(folder)
    image = nifti(server.infer("tiny_anomaly_regions", uid, "image"), regions)
    assert np.mean(np.asarray(image.dataobj) != (expected.regions_volume > 0)) < ACROSS / 10
    content = server.infer("tiny_anomaly_regions", uid, "dicom_seg", label_info=LABEL_INFO)
    (tmp_path / "seg.dcm").write_bytes(content)  # made without being stored
    assert highdicom.seg.segread(tmp_path / "seg.dcm").SegmentSequence[0].SegmentLabel == "anomaly"

    params = json.dumps({"label_info": LABEL_INFO})
    path = f"/datastore/label?image={uid}&tag=final"
    server.json(path, "PUT", "-F", f"params={params}", "-F", f"label=@{regions}")
    found = segmentations(orthanc, tmp_path)
    (segmentation,) = (one for one in found if referenced(one)[0] == uid)
    assert len(referenced(segmentation)[1]) > 0
    volume = segmentation.get_volume(combine_segments=True)
    found = places(volume.array, np.diag([-1, -1, 1, 1]) @ volume.affine)
    wanted = places(np.asarray(image.dataobj), image.affine)  # what was sent
    assert len(found) == len(wanted) > 0
    assert cKDTree(found).query(wanted)[0].max() < 0.01


def segmentations(orthanc, folder: Path):
    """Those that Orthanc has."""
    for series in map("/series/{}".format, orthanc.json("/series")):
        if orthanc.json(series)["MainDicomTags"]["Modality"] == "SEG":
            (instance,) = orthanc.json(series)["Instances"]
            (folder / f"{instance}.dcm").write_bytes(orthanc.get(f"/instances/{instance}/file"))
            yield highdicom.seg.segread(folder / f"{instance}.dcm")


def referenced(segmentation):
    """The series that it was made of, and the instances of it."""
    (series,) = segmentation.ReferencedSeriesSequence
    return series.SeriesInstanceUID, series.ReferencedInstanceSequence


def places(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Millimetres of the voxels that are not 0, (N, 3)."""
    return nib.affines.apply_affine(affine, np.argwhere(volume))


def test_training_finds_the_series_that_readers_marked(server, series):
    for name in ("plain", "contrast"):
        server.ask("POST", f"/infer/tiny_anomaly_map?image={series[name][0]}&output=json")
        server.mark(series[name][0], "normal")  # which MONAI Label got by inference
    ended = server.train()
    assert ended["status"] == "ERROR"
    assert "2 people are too few for a rate of 0.25" in ended["details"][-1]
