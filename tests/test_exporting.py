"""An exported file says what the predictor says."""

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_slices import disc
from workflows import NARROW

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.bundles import read_settings
from pathology_screen.calibration import calibrate
from pathology_screen.cli import main
from pathology_screen.errors import ConfigError
from pathology_screen.exporting import METADATA, export
from pathology_screen.predictor import Predictor, build_network, build_preprocessing, build_scoring
from pathology_screen.screening import Screener

onnxruntime = pytest.importorskip("onnxruntime")
PAGE = Path(__file__).parents[1] / "docs/weights.md"
HEALTHY = 19
NAMES = ("reconstruction", "anomaly_map", "score")


def draw(count, size, first=0):
    """Slices (N, 1, size, size) of as many people; every second one has a lesion."""
    drawn = np.stack([disc(first + i, lesion=i % 2 == 1) for i in range(count)])[:, None] / 255
    return torch.nn.functional.interpolate(torch.from_numpy(drawn).float(), (size, size))


def narrow(name, folder, scoring=None):
    """A bundle with a narrow network of random weights, on slices of 64 pixels."""
    settings = read_settings(name)
    sizes = {key.split("#")[1]: it for key, it in NARROW[name].items() if "network_def#" in key}
    sizes |= {"size": 64} if "size" in settings["network_def"] else {}
    torch.manual_seed(0)
    network = build_network(name, settings["network_def"] | sizes).eval().requires_grad_(False)
    torch.save(network.state_dict(), folder / "model.pt")
    return Predictor(
        name,
        network,
        build_scoring(name, network, settings["scoring"] if scoring is None else scoring),
        build_preprocessing(settings["preprocessing"]),
        settings["slice"] | {"size": 64},
        folder / "model.pt",
    )


def screener(predictor, slices, rate=0.5):
    """Calibrated on these slices, one a person."""
    people = [{"image": image, "subject": str(i)} for i, image in enumerate(slices)]
    return Screener(predictor, calibrate(predictor, people), rate)


def run(path, slices):
    """What onnxruntime makes of slices, by name."""
    session = onnxruntime.InferenceSession(path)
    found = map(torch.from_numpy, session.run(None, {"slices": slices.numpy()}))
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


def agree(found, predictor, slices, threshold):
    """Outputs, within the bounds on the page, and on which side of the threshold the scores lie."""
    expected = predictor.predict(slices)
    assert list(found) == list(NAMES if predictor.reconstructs else NAMES[1:])
    torch.testing.assert_close(found["score"], expected.scores, rtol=1e-4, atol=0)
    torch.testing.assert_close(found["score"], expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found["anomaly_map"], expected.maps, rtol=0, atol=1e-4)
    if predictor.reconstructs:
        torch.testing.assert_close(found["reconstruction"], expected.output, rtol=0, atol=1e-4)
    suspicious = expected.scores > threshold
    assert torch.equal(found["score"] > threshold, suspicious)
    assert 0 < suspicious.sum() < len(slices)


@pytest.mark.parametrize(
    ("name", "scoring"),
    [
        *((name, None) for name in NARROW),
        ("ra", {"perceptual": "none", "equalize": False, "score": "peak"}),
        ("ra", {"perceptual": "st_alex", "equalize": False, "score": "peak", "sigma": 1.0}),
        ("mkd", {"kind": "discrepancy", "sigma": 4.0}),
    ],
)
def test_a_file_says_what_the_predictor_says(name, scoring, tmp_path):
    """By the scoring of the bundle, or another."""
    predictor = narrow(name, tmp_path, scoring)
    stated = export(screener(predictor, draw(4, 64)), tmp_path / "it.onnx")
    slices = draw(7, 64, first=4)
    found = run(tmp_path / "it.onnx", slices)
    agree(found, predictor, slices, stated["image_threshold"])
    alone = run(tmp_path / "it.onnx", slices[:1])["score"]
    torch.testing.assert_close(alone, found["score"][:1], rtol=1e-5, atol=0)


@pytest.mark.needs_shared
def test_the_perceptual_distance_of_the_paper(shared_data, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(shared_data.parent / "torch_home"))
    scoring = {"perceptual": "squeeze", "equalize": False}
    test_a_file_says_what_the_predictor_says("ra", scoring, tmp_path)


def test_the_metadata_are_those_of_the_calibration(predictor, make_calibration, tmp_path):
    calibration = make_calibration()
    made = export(Screener(predictor, calibration, 0.1), tmp_path / "it.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    text = session.get_modelmeta().custom_metadata_map
    stated = {name: json.loads(value) for name, value in text.items()}
    expected = {
        "image_threshold": calibration.image_threshold(0.1),
        "false_positive_rate": 0.1,
        "pixel_threshold": calibration.pixel_threshold,
        "calibration_id": calibration.calibration_id,
        "identity": predictor.identity,
    }
    assert stated == made == made | expected
    assert stated["versions"].keys() >= {"pathology_screen", "torch", "brain_extraction_sha256"}


def test_a_torchscript_file_says_the_same(tmp_path):
    predictor = narrow("ra", tmp_path)
    stated = export(screener(predictor, draw(4, 64)), tmp_path / "it.pt", "torchscript")
    files, slices = {METADATA: ""}, draw(7, 64, first=4)
    graph = torch.jit.load(tmp_path / "it.pt", _extra_files=files)
    with torch.no_grad():
        outputs = graph(slices)
    found = dict(zip(NAMES, outputs, strict=True))
    agree(found, predictor, slices, stated["image_threshold"])
    assert json.loads(files[METADATA]) == stated


def test_what_cannot_be_exported_is_refused(predictor, make_calibration, tmp_path, monkeypatch):
    monkeypatch.setattr("pathology_screen.exporting.find_spec", lambda name: None)
    equalising = replace(predictor, scoring=AnomalyMap("none", equalize=True))
    made, file = Screener(predictor, make_calibration()), tmp_path / "it.onnx"
    for wrong, kind, message in (
        (predictor, "onnxx", "one of onnx, torchscript, not 'onnxx'"),
        (equalising, "onnx", "equalises slices, which is no tensor operation"),
        (narrow("mkd", tmp_path, {"kind": "gradient"}), "onnx", 'of the kind "discrepancy"'),
        (predictor, "onnx", "ONNX needs onnx, onnxscript: pip install"),
    ):
        made.predictor = wrong
        with pytest.raises(ConfigError, match=message):
            export(made, file, kind)
    assert not file.exists()


@pytest.fixture(scope="module")
def ra(tmp_path_factory):
    """Folder with `ra.onnx`, which the command made of RA as it is shipped but for its weights,
    which are random; and its predictor."""
    folder = tmp_path_factory.mktemp("ra")
    torch.manual_seed(0)
    network = build_network("ra", read_settings("ra")["network_def"])
    torch.save(network.state_dict(), folder / "model.pt")
    predictor = Predictor.load("ra", folder / "model.pt")
    made = screener(predictor, draw(HEALTHY, 128))
    made.judge.calibration.save(folder / "site.json")
    files = ["--weights", folder / "model.pt", "--calibration", folder / "site.json"]
    files += ["-o", folder / "ra.onnx", "--rate", 0.5]
    assert main([str(word) for word in ("export", "--bundle", "ra", *files)]) == 0
    return folder, predictor, made.judge.image_threshold


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_ra_in_full_size(ra, count):
    folder, predictor, threshold = ra
    slices = draw(count, 128, first=HEALTHY)
    agree(run(folder / "ra.onnx", slices), predictor, slices, threshold)


@pytest.mark.slow
@pytest.mark.needs_shared
def test_ra_on_a_hundred_real_slices(ra, shared_data):
    folder, predictor, threshold = ra
    listed = json.loads((Path(__file__).parents[1] / "data_lists/ixi_slices.json").read_text())
    items = (listed["test"] + listed["training"])[:100]
    files = [shared_data / "ixi_slices" / item["image"] for item in items]
    prepared = [predictor.prepare(item | {"image": file}) for item, file in zip(items, files)]
    slices = torch.stack([it["image"].as_tensor() for it in prepared])
    expected, found = predictor.predict(slices), run(folder / "ra.onnx", slices)["score"]
    torch.testing.assert_close(found, expected.scores, rtol=1e-4, atol=0)
    middle = float(expected.scores.sort().values[49:51].mean())
    assert torch.equal(found > middle, expected.scores > middle)


def test_openvino_says_the_same(ra):
    openvino = pytest.importorskip("openvino")
    folder, predictor, threshold = ra
    slices, exact = draw(10, 128, first=HEALTHY), {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(folder / "ra.onnx", "CPU", exact)
    found = compiled(slices.numpy()).to_tuple()
    agree(dict(zip(NAMES, map(torch.from_numpy, found))), predictor, slices, threshold)


def test_the_example_of_the_page(ra, monkeypatch, capsys):
    folder, predictor, threshold = ra
    monkeypatch.chdir(folder)
    slices = draw(4, 128, first=HEALTHY)
    np.save("slices.npy", slices.numpy())
    page = PAGE.read_text("utf-8")
    Path("example.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    runpy.run_path("example.py")
    stated, *printed = capsys.readouterr().out.splitlines()
    expected = predictor.predict(slices).scores
    assert stated.startswith("ra ") and "'plane_mm': 23" in stated
    assert [line.split(":")[0] for line in printed] == [
        "suspicious" if score > threshold else "normal" for score in expected
    ]
    assert len(page.split()) < 400
