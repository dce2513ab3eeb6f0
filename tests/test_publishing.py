import json
import shutil

import pytest

from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError
from pathology_screen.files import sha256
from pathology_screen.publishing import publish

PUBLISHED = ["calibration.json", "model.pt", "origin.json", "training_log.csv"]


def calibrate(run, **identity):
    rates = {"all_pixels": 0.05, "brain_pixels": 0.1}
    calibration = Calibration(0.1, 0.05, rates, (0.5, 0.25), (0, 1), {"scoring": {}} | identity)
    calibration.save(run / "calibration.json")
    return calibration


@pytest.fixture
def run(tmp_path):
    """Output folder of a training run."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.pt").write_bytes(b"weights")
    (folder / "resume.pt").write_bytes(b"not to be published")
    (folder / "log.csv").write_text("epoch\n1\n")
    calibrate(folder, weights_sha256=sha256(folder / "model.pt"))
    return folder


@pytest.fixture
def bundle(tmp_path):
    """A bundle with older weights."""
    (tmp_path / "bundle/models").mkdir(parents=True)
    (tmp_path / "bundle/models/model.pt").write_bytes(b"older weights")
    return tmp_path / "bundle"


def refuse(run, bundle, message):
    """And the bundle is as before."""
    with pytest.raises(ArtifactError, match=message):
        publish(run, bundle, "x")
    assert [path.read_bytes() for path in (bundle / "models").iterdir()] == [b"older weights"]


def test_weights_are_published_with_all_that_says_where_they_come_from(run, bundle):
    publish(run, bundle.with_name("new"), "x")
    models = publish(run, bundle, "python -m monai.bundle run training")
    assert models == bundle / "models"
    for made in (models, bundle.with_name("new") / "models"):
        assert sorted(path.name for path in made.iterdir()) == PUBLISHED
    assert (models / "model.pt").read_bytes() == b"weights"
    assert (models / "training_log.csv").read_text() == "epoch\n1\n"
    calibration = Calibration.load(models / "calibration.json")
    assert json.loads((models / "origin.json").read_text()) == {
        "weights_sha256": sha256(models / "model.pt"),
        "calibration_id": calibration.calibration_id,
        "made_by": "python -m monai.bundle run training",
    }


@pytest.mark.parametrize("missing", ["model.pt", "calibration.json", "log.csv", ""])
def test_an_unfinished_run_is_refused(missing, run, bundle):
    """The last has no folder."""
    (run / missing).unlink() if missing else shutil.rmtree(run)
    refuse(run, bundle, missing or r"model\.pt")


@pytest.mark.parametrize("identity", [{"weights_sha256": "a" * 64}, {}])
def test_the_calibration_of_other_weights_is_refused(identity, run, bundle):
    calibrate(run, **identity)
    refuse(run, bundle, "other weights")


def test_an_altered_calibration_is_refused(run, bundle):
    text = (run / "calibration.json").read_text()
    text = text.replace('"pixel_threshold": 0.1', '"pixel_threshold": 0.9')
    (run / "calibration.json").write_text(text)
    refuse(run, bundle, "altered")
