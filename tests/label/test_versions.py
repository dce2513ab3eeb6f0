"""Versions of weights on a server: which is in use, and that none is lost."""

import json
import shutil
import threading

import pytest
import torch

from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError
from pathology_screen.files import sha256
from pathology_screen.label.versions import SHIPPED, Versions


def make_run(folder, value, belongs=True):
    """The output folder of a training run with weights of one number."""
    folder.mkdir(parents=True)
    torch.save({"weight": torch.tensor(value)}, folder / "model.pt")
    digest = sha256(folder / "model.pt") if belongs else "0" * 64
    rates = {"all_pixels": 0.05, "brain_pixels": 0.1}
    Calibration(0.1, 0.05, rates, (0.1, 0.2), (0, 1), {"weights_sha256": digest, "slice": {}}).save(
        folder / "calibration.json"
    )
    (folder / "log.csv").write_text("epoch\n1\n")
    return folder


@pytest.fixture
def versions(tmp_path):
    make_run(tmp_path / "bundle" / "models", 0.0)
    return Versions(tmp_path / "versions", tmp_path / "bundle")


def names(versions):
    return [version.name for version in versions.all()]


def facts(new=1.0):
    people = dict.fromkeys(("training", "validation", "calibration", "test"), 20)
    return {
        "trained": "2026-11-24T12:00:00+00:00",
        "people": people,
        "compared_with": SHIPPED,
        "error": {"old": 1.5, "new": new},
    }


def test_the_shipped_weights_are_in_use_until_others_are_activated(versions, tmp_path):
    assert versions.active().name == SHIPPED
    assert versions.active().weights == tmp_path / "bundle" / "models" / "model.pt"
    new = versions.add(make_run(tmp_path / "run", 1.0), facts())
    assert new.name == "v1" and new.facts["error"]["new"] == 1.0
    assert versions.active().name == SHIPPED
    versions.activate("v1")
    assert versions.active() == new
    assert torch.load(versions.active().weights, weights_only=True)["weight"] == 1.0
    assert Calibration.load(new.calibration).identity["weights_sha256"] == sha256(new.weights)


def test_an_older_version_comes_back_and_none_is_lost(versions, tmp_path):
    for value in range(1, 12):
        run = make_run(tmp_path / f"run{value}", float(value))
        versions.activate(versions.add(run, facts(value)).name)
    assert names(versions) == [SHIPPED, *(f"v{i}" for i in range(1, 12))]
    assert versions.active().name == "v11"
    assert versions.activate("v2") == versions.active()
    assert torch.load(versions.active().weights, weights_only=True)["weight"] == 2.0
    versions.activate(SHIPPED)
    assert torch.load(versions.active().weights, weights_only=True)["weight"] == 0.0


@pytest.mark.parametrize("name", ["", "model.pt", "calibration.json", "log.csv"])
def test_a_run_that_lacks_a_file_or_has_a_foreign_calibration_makes_no_version(
    versions, tmp_path, name
):
    run = make_run(tmp_path / "run", 1.0, belongs=bool(name))
    if name:
        (run / name).unlink()
    with pytest.raises(ArtifactError, match=f"no {name}" if name else "belongs to other weights"):
        versions.add(run, facts())
    assert names(versions) == [SHIPPED]
    assert versions.add(make_run(tmp_path / "other", 1.0), facts()).name == "v1"


def test_an_unknown_version_changes_nothing(versions, tmp_path):
    versions.activate(versions.add(make_run(tmp_path / "run", 1.0), facts()).name)
    for name in ("v2", "", "../bundle", "v1/"):
        with pytest.raises(ArtifactError, match="has no version"):
            versions.activate(name)
    assert versions.active().name == "v1"


def test_a_version_that_was_removed_is_not_replaced_by_another(versions, tmp_path):
    new = versions.add(make_run(tmp_path / "run", 1.0), facts())
    versions.activate("v1")
    shutil.rmtree(versions.folder / "v1")
    assert not new.weights.exists()
    with pytest.raises(ArtifactError, match="has no version 'v1'"):
        versions.active()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": ["v1"]}', "\x00"])
def test_a_damaged_mark_is_told(versions, content):
    versions.folder.mkdir()
    (versions.folder / "active.json").write_text(content)
    with pytest.raises(ArtifactError):
        versions.active()


def test_a_damaged_version_is_told(versions, tmp_path):
    versions.add(make_run(tmp_path / "run", 1.0), facts())
    (versions.folder / "v1" / "version.json").write_text("{")
    with pytest.raises(ArtifactError, match="version.json of the version v1"):
        versions.all()


def test_what_a_killed_training_left_is_no_version(versions, tmp_path):
    make_run(versions.folder / "training", 1.0)
    make_run(versions.folder / "staged", 1.0)
    assert names(versions) == [SHIPPED]
    assert versions.add(make_run(tmp_path / "run", 2.0), facts()).name == "v1"


def test_a_reader_never_meets_half_a_switch(versions, tmp_path):
    versions.add(make_run(tmp_path / "run", 1.0), facts())
    found, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            found.add(versions.active().name)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        versions.activate("v1")
        versions.activate(SHIPPED)
    stop.set()
    reader.join()
    assert found <= {"v1", SHIPPED}


def test_the_table_marks_what_is_in_use(versions, tmp_path):
    versions.add(make_run(tmp_path / "run", 1.0), facts())
    versions.activate("v1")
    shipped, trained = versions.table().splitlines()
    assert shipped == "  shipped"
    assert trained.startswith("* v1  trained 2026-11-24")
    assert "error on 20 others 1, of shipped 1.5" in trained
    assert json.loads((versions.folder / "active.json").read_text()) == {"version": "v1"}
