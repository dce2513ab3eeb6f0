"""A real MONAI Label server on a folder of scans: what viewers get is what the Screener gives."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from servers import RATE, label_python, nifti, parts, running_server

from pathology_screen.label.app_folder import write_app

pytestmark = pytest.mark.label

REGIONS, MAP, WORKLIST = "tiny_anomaly_regions", "tiny_anomaly_map", "tiny_most_suspicious"


@pytest.fixture(scope="module")
def store(studies, tmp_path_factory):
    """The datastore: the studies, and room for what the server adds."""
    return Path(shutil.copytree(studies, tmp_path_factory.mktemp("store") / "studies"))


@pytest.fixture(scope="module")
def server(store, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    write_app(folder / "app")
    conf = {"models": str(tiny), "rate": str(RATE)}
    with running_server(folder / "app", store, folder / "server.log", conf) as running:
        yield running


@pytest.fixture(scope="module")
def expected(studies, screener):
    """What the Screener makes of the study "lesion"."""
    return screener(studies / "lesion.png")


def check_record(record, result):
    assert record["outcome"] == result.outcome
    assert record["score"] == pytest.approx(result.score, rel=1e-5)
    assert (record["percentile"], record["p_value"]) == (result.percentile, result.p_value)
    assert len(record["regions"]) == len(result.regions)
    assert record["weights_version"] == "shipped"


def test_it_offers_regions_map_worklist_scoring_and_training(server):
    info = server.json("/info/")
    kinds = {name: model["type"] for name, model in info["models"].items()}
    assert kinds == {REGIONS: "segmentation", MAP: "others"}
    assert info["models"][REGIONS]["labels"] == {"anomaly": 1}
    assert info["models"][REGIONS]["config"] == {"plane_mm": None, "numbered": False}
    assert list(info["strategies"]) == [WORKLIST]
    assert list(info["scoring"]) == ["tiny_screening"]
    assert list(info["trainers"]) == ["tiny_healthy"]
    assert info["datastore"]["total"] == 3


def test_it_listens_on_this_machine_alone(server):
    port = int(server.url.rpartition(":")[2])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    found = {words[1] for words in listening if words[3] == "0A"}
    ours = {place for place in found if place.endswith(f":{port:04X}")}
    assert ours == {f"0100007F:{port:04X}"}
    six = Path("/proc/net/tcp6")
    assert not six.exists() or f":{port:04X} " not in six.read_text()


def test_volumes_and_records_are_those_of_the_screener(server, expected, tmp_path):
    regions = expected.regions_volume.astype(np.uint8)
    for task, params, wanted in (
        (MAP, {}, expected.map_volume.astype(np.float32)),
        (REGIONS, {}, (regions > 0).astype(np.uint8)),
        (REGIONS, {"numbered": True}, regions),
    ):
        answer = parts(server.infer(task, "lesion", "all", **params))
        record = json.loads(answer["params"])
        check_record(record, expected)
        found = nifti(answer["image"], tmp_path / "found.nii.gz")
        assert found.get_data_dtype() == wanted.dtype
        np.testing.assert_allclose(np.asarray(found.dataobj), wanted, atol=1e-5)
        np.testing.assert_array_equal(found.affine, expected.affine)
    assert list(record["label_names"].values()) == [region["label"] for region in record["regions"]]


def test_viewers_get_nrrd(server, expected, tmp_path):
    itk = pytest.importorskip("itk")
    wanted = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    answer = server.infer(REGIONS, "lesion", "image", **wanted)
    (tmp_path / "regions.nrrd").write_bytes(answer)
    image = itk.imread(str(tmp_path / "regions.nrrd"))
    values = itk.array_from_image(image).transpose()
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, expected.regions_volume > 0)
    lps = np.diag([-1, -1, 1, 1]) @ expected.affine
    np.testing.assert_allclose(image.GetOrigin(), lps[:3, 3], atol=1e-5)
    directions = np.asarray(image.GetDirection()) * np.asarray(image.GetSpacing())
    np.testing.assert_allclose(directions, lps[:3, :3], atol=1e-5)


def test_a_refused_study_is_told_with_its_code_and_without_its_name(server):
    status, text = server.refusal(REGIONS, "broken")
    assert status == 422 and text.startswith("[not_finite] ")
    assert "broken" not in text and "/" not in text


def test_a_request_that_makes_no_sense_is_told(server):
    for study, params, code, words in (
        ("lesion", {"plane_mm": "top"}, 400, "plane_mm is a number"),
        ("lesion", {"result_extension": "/../x.nii"}, 400, "result_extension"),
        ("nobody", {}, 404, "there is no such study"),
    ):
        status, text = server.refusal(REGIONS, study, **params)
        assert status == code and words in text


def test_a_scan_may_be_sent_along(server, expected, store):
    sent = ["-F", "params={}", "-F", f"file=@{store / 'lesion.png'}"]
    check_record(server.json(f"/infer/{REGIONS}?output=json", "POST", *sent), expected)


def test_many_studies_are_screened_though_one_is_refused(server, expected):
    options = ("-H", "Content-Type: application/json", "-d", "{}")
    found = server.json(f"/batch/infer/{REGIONS}?images=all&run_sync=true", "POST", *options)
    assert found["broken"]["error"].startswith("[not_finite]")
    check_record(found["lesion"]["params"], expected)
    assert found["lesion"]["label"] == "lesion"


def test_the_worklist_gives_the_most_suspicious_unread_study_first(
    server, studies, screener, tmp_path
):
    def scored():
        status, body = server.ask("GET", "/scoring/?all=true")  # 404 before the first
        return status == 200 and any(one["status"] == "DONE" for one in json.loads(body))

    deadline = time.monotonic() + 600
    while not scored():
        assert time.monotonic() < deadline, "the studies were not scored in the background"
        time.sleep(0.5)
    assert server.json("/scoring/tiny_screening?run_sync=true", "POST") == {}  # nothing more to do

    results = {name: screener(studies / f"{name}.png") for name in ("healthy", "lesion")}
    order = sorted(results, key=lambda name: -results[name].score)
    first = server.next_study()
    assert (first["id"], first["outcome"]) == (order[0], results[order[0]].outcome)
    assert first["score"] == pytest.approx(results[order[0]].score, rel=1e-5)
    assert (first["unread"], first["waiting"]) == (3, 0)
    assert server.next_study()["id"] == order[1]  # the first is with a reader
    last = server.next_study()
    assert (last["id"], last["outcome"], last["code"]) == ("broken", "not_assessable", "not_finite")

    server.mark(order[0], "normal")
    again = server.next_study()
    assert (again["id"], again["unread"]) == (order[1], 2)
    label = tmp_path / "label.nii.gz"
    label.write_bytes(server.infer(REGIONS, order[1], "image"))
    path = f"/datastore/label?image={order[1]}"
    server.json(path, "PUT", "-F", f"label=@{label}", "-F", "params={}")
    assert (server.next_study()["id"], server.next_study()["unread"]) == ("broken", 1)
    server.mark("broken", "abnormal")
    assert server.next_study() == {}


def test_the_stock_app_gives_the_same(expected, tiny, store, tmp_path):
    """MONAI Label's own `monaibundle`, with the bundle's folder copied into it."""
    command = [label_python(), "-m", "monailabel.main", "apps", "--download"]
    command += ["--name", "monaibundle", "--output", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.copytree(tiny, tmp_path / "monaibundle" / "model" / "tiny")
    conf = {"models": "tiny", "zoo_source": "ngc", "sam2": "false", "skip_trainers": "true"}
    with running_server(tmp_path / "monaibundle", store, tmp_path / "stock.log", conf) as stock:
        options = {"device": "cpu", "result_extension": ".nii.gz"}
        answer = parts(stock.infer("tiny", "lesion", "all", **options))
        path = "/infer/tiny?image=broken&output=json"
        assert stock.ask("POST", path, "-F", "params={}")[0] == 500
    record = json.loads(answer["params"])
    assert record["outcome"] == expected.outcome
    assert record["score"] == pytest.approx(expected.score, rel=1e-5)
    found = nifti(answer["image"], tmp_path / "regions.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected.regions_volume > 0)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-6)
    assert "not_finite" in (tmp_path / "stock.log").read_text()
