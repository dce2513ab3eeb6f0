"""The folder of an app; and the versions of weights in it: which is in use, and none is lost."""

import json
import shutil

import pytest
import torch

from pathology_screen.calibration import Calibration
from pathology_screen.cli import main
from pathology_screen.errors import ArtifactError
from pathology_screen.files import sha256
from pathology_screen.label.app_folder import SHIPPED, Versions, write_app

FACTS = {
    "trained": "2026-11-24T12:00:00+00:00",
    "people": dict.fromkeys(("training", "validation", "calibration", "test"), 20),
    "compared_with": SHIPPED,
    "error": {"old": 1.5, "new": 1.0},
}


def test_the_command_writes_an_app_or_updates_one_that_keeps_what_it_has_learned(tmp_path, capsys):
    folder = tmp_path / "app"
    assert main(["label-app", str(folder)]) == 0
    assert f"python {folder / 'main.py'} --studies STUDIES" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "main.py"]
    written = (folder / "main.py").read_text()
    compile(written, "main.py", "exec")

    (folder / "main.py").write_text(written + "# of an older version\n")
    kept = folder / "model" / "ra" / "active.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    assert write_app(folder).read_text() == written and kept.read_text() == "{}"


@pytest.mark.parametrize("name", ["notes.txt", "main.py"])
def test_another_folder_is_not_written_into(tmp_path, name, capsys):
    (tmp_path / name).write_text("mine")
    assert main(["label-app", str(tmp_path)]) == 1
    assert "name a new one" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def make_run(folder, value, belongs=True):
    """The output folder of a training run with weights of one number."""
    folder.mkdir(parents=True)
    torch.save({"weight": torch.tensor(value)}, folder / "model.pt")
    digest = sha256(folder / "model.pt") if belongs else "0" * 64
    rates, identity = {"all_pixels": 0.05, "brain_pixels": 0.1}, {"weights_sha256": digest}
    calibration = Calibration(0.1, 0.05, rates, (0.1, 0.2), (0, 1), identity | {"slice": {}})
    calibration.save(folder / "calibration.json")
    (folder / "log.csv").write_text("epoch\n1\n")
    return folder


@pytest.fixture
def versions(tmp_path):
    make_run(tmp_path / "bundle" / "models", 0.0)
    return Versions(tmp_path / "versions", tmp_path / "bundle")


@pytest.fixture
def first(versions, tmp_path):
    """The version that was trained first, and is in use."""
    new = versions.add(make_run(tmp_path / "run", 1.0), FACTS)
    assert versions.active().name == SHIPPED  # until it is made active
    return versions.activate(new.name)


def names(versions):
    return [version.name for version in versions.all()]


def weight(versions):
    """That of the version in use."""
    return torch.load(versions.active().weights, weights_only=True)["weight"].item()


def test_an_older_version_comes_back_and_none_is_lost(versions, first, tmp_path):
    assert (first.name, first.facts) == ("v1", FACTS) and first == versions.active()
    assert Calibration.load(first.calibration).identity["weights_sha256"] == sha256(first.weights)
    for value in range(2, 12):
        run = make_run(tmp_path / f"run{value}", float(value))
        versions.activate(versions.add(run, FACTS).name)
    assert names(versions) == [SHIPPED, *(f"v{i}" for i in range(1, 12))]
    assert versions.active().name == "v11" and weight(versions) == 11.0
    assert versions.activate("v2") == versions.active() and weight(versions) == 2.0
    versions.activate(SHIPPED)
    assert weight(versions) == 0.0


@pytest.mark.parametrize("name", ["", "model.pt", "calibration.json", "log.csv"])
def test_a_run_that_lacks_a_file_or_has_a_foreign_calibration_makes_no_version(
    versions, tmp_path, name
):
    run = make_run(tmp_path / "run", 1.0, belongs=bool(name))
    if name:
        (run / name).unlink()
    with pytest.raises(ArtifactError, match=f"no {name}" if name else "belongs to other weights"):
        versions.add(run, FACTS)
    assert names(versions) == [SHIPPED]


def test_what_a_killed_training_left_is_no_version(versions, tmp_path):
    make_run(versions.folder / "training", 1.0)
    make_run(versions.folder / "staged", 1.0)
    assert names(versions) == [SHIPPED]
    assert versions.add(make_run(tmp_path / "run", 2.0), FACTS).name == "v1"


def test_a_version_that_is_not_there_is_not_replaced_by_another(versions, first):
    for name in ("v2", "", "../bundle", "v1/"):
        with pytest.raises(ArtifactError, match="has no version"):
            versions.activate(name)
    assert versions.active() == first
    shutil.rmtree(first.weights.parent)
    with pytest.raises(ArtifactError, match="has no version 'v1'"):
        versions.active()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": ["v1"]}', "\x00"])
def test_what_is_damaged_is_told(versions, first, content):
    (versions.folder / "active.json").write_text(content)
    with pytest.raises(ArtifactError):
        versions.active()
    (first.weights.parent / "version.json").write_text("{")
    with pytest.raises(ArtifactError, match="version.json of the version v1"):
        versions.all()


def test_a_damaged_version_costs_no_other_training_its_result(versions, first, tmp_path):
    (first.weights.parent / "version.json").write_text("{")
    new = versions.add(make_run(tmp_path / "run2", 2.0), FACTS)
    assert (new.name, new.facts) == ("v2", FACTS) and new.weights.is_file()


def test_the_table_marks_what_is_in_use(versions, first):
    shipped, trained = versions.table().splitlines()
    assert shipped == "  shipped"
    assert trained.startswith("* v1  trained 2026-11-24")
    assert "error on 20 others 1, of shipped 1.5" in trained
    mark, before = versions.folder / "active.json", versions.folder / "before.json"
    before.hardlink_to(mark)
    versions.activate(SHIPPED)
    assert json.loads(before.read_text()) == {"version": "v1"}  # a reader meets no half of a switch
    assert json.loads(mark.read_text()) == {"version": SHIPPED}
