"""The app without a server: its folder, options, models and scores."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from servers import RATE

from pathology_screen.bundles import bundle_root
from pathology_screen.calibration import Calibration
from pathology_screen.cli import main
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.label.app_folder import write_app
from pathology_screen.label.model import Model, find_models
from pathology_screen.label.options import Options
from pathology_screen.label.scores import Scores
from pathology_screen.label.versions import SHIPPED


@pytest.fixture
def model(tmp_path, tiny):
    return Model(tiny, tmp_path / "app", Options(rate=RATE))


def test_the_command_writes_an_app_and_says_how_to_start_it(tmp_path, capsys):
    folder = tmp_path / "app"
    assert main(["label-app", str(folder)]) == 0
    assert f"python {folder / 'main.py'} --studies STUDIES" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "main.py"]
    compile((folder / "main.py").read_text(), "main.py", "exec")


def test_an_app_is_brought_up_to_date_and_keeps_what_it_has_learned(tmp_path):
    main_file = write_app(tmp_path / "app")
    kept = tmp_path / "app" / "model" / "ra" / "active.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    main_file.write_text(main_file.read_text() + "# of an older version\n")
    assert "older version" not in write_app(tmp_path / "app").read_text()
    assert kept.read_text() == "{}"


@pytest.mark.parametrize("name", ["notes.txt", "main.py"])
def test_another_folder_is_not_written_into(tmp_path, name, capsys):
    (tmp_path / name).write_text("mine")
    assert main(["label-app", str(tmp_path)]) == 1
    assert "name a new one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_options_are_read_from_words():
    assert Options.from_conf({}) == Options()
    conf = {"models": "ra, vae", "rate": "0.1", "device": "cpu", "calibration": "mine.json"}
    assert Options.from_conf(conf) == Options(("ra", "vae"), 0.1, "cpu", Path("mine.json"))


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"model": "ra"}, "there is no --conf model; there are models"),
        ({"slices": "all"}, "there is no --conf slices"),
        ({"rate": "five"}, "'five' is not a number"),
    ],
)
def test_options_that_make_no_sense_are_refused(conf, words):
    with pytest.raises(ConfigError, match=words):
        Options.from_conf(conf)


def test_bundles_without_weights_are_not_offered(tmp_path, tiny, monkeypatch):
    shutil.copytree(tiny, tmp_path / "ra")
    untrained = tmp_path / "vae"
    shutil.copytree(bundle_root("vae"), untrained, ignore=shutil.ignore_patterns("models", "runs"))
    monkeypatch.setattr("pathology_screen.label.model.bundles_folder", lambda: tmp_path)
    monkeypatch.setattr(
        "pathology_screen.label.model.bundle_root", lambda name: Path(bundle_root(tmp_path / name))
    )
    assert [model.name for model in find_models(tmp_path, Options(rate=RATE))] == ["ra"]
    with pytest.raises(ArtifactError, match=r"no weights|no version"):
        find_models(tmp_path, Options(models=(str(untrained),)))
    with pytest.raises(ConfigError, match="neither a bundle"):
        find_models(tmp_path, Options(models=("unet",)))


def test_two_models_of_one_name_are_refused(tmp_path, tiny):
    copy = shutil.copytree(tiny, tmp_path / "tiny")
    with pytest.raises(ConfigError, match="same name"):
        find_models(tmp_path / "app", Options(models=(str(tiny), str(copy)), rate=RATE))


def test_a_rate_that_the_calibration_does_not_allow_is_told_at_the_start(tmp_path, tiny):
    with pytest.raises(ConfigError, match="people"):
        find_models(tmp_path, Options(models=(str(tiny),), rate=0.001))


def test_a_calibration_belongs_to_one_model(tmp_path):
    with pytest.raises(ConfigError, match="one model"):
        find_models(tmp_path, Options(models=("ra", "vae"), calibration=tmp_path / "mine.json"))


def test_a_model_gives_what_the_screener_gives(model, screener, studies):
    found, expected = model.screen(studies / "lesion.png"), screener(studies / "lesion.png")
    assert (found.outcome, found.score, found.p_value) == (
        expected.outcome,
        expected.score,
        expected.p_value,
    )
    np.testing.assert_array_equal(found.map_volume, expected.map_volume)
    np.testing.assert_array_equal(found.regions_volume, expected.regions_volume)
    assert expected.regions_volume.any()


def test_what_cannot_be_read_is_not_assessable(model, tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    assert model.screen(tmp_path / "broken.nii.gz").code == "unsupported_format"
    assert model.screen(tmp_path / "absent.nii.gz").code == "not_found"


def test_another_version_is_used_as_soon_as_it_is_active(model, tmp_path):
    """Here the same weights under a name of their own."""
    before = model.screener()
    assert model.screener() is before
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.pt", "calibration.json"):
        (run / name).symlink_to(model.bundle / "models" / name)
    (run / "log.csv").touch()
    model.versions.activate(model.versions.add(run, {}).name)
    after = model.screener()
    assert after is not before
    assert model.screener() is after
    model.versions.activate(SHIPPED)
    assert model.screener() is not after


def test_scores_are_kept_without_the_name_of_the_study(model, tmp_path, studies):
    scores = Scores(model, tmp_path / "scores")
    assert scores.waiting(["Jane Doe", "other"]) == ["Jane Doe", "other"]
    result = model.screen(studies / "lesion.png")
    scores.keep("Jane Doe", result)
    found = scores.of("Jane Doe")
    assert (found["outcome"], found["score"], found["code"]) == (result.outcome, result.score, None)
    assert scores.waiting(["Jane Doe", "other"]) == ["other"]
    (file,) = (tmp_path / "scores").iterdir()
    assert "Jane" not in file.name + file.read_text()


def test_scores_of_other_settings_count_for_nothing(model, tmp_path, studies):
    folder = tmp_path / "scores"
    Scores(model, folder).keep("one", model.screen(studies / "broken.nii.gz"))
    assert Scores(model, folder).of("one")["code"] == "not_finite"
    other = Model(model.bundle, tmp_path / "app", Options(rate=0.4))
    assert Scores(other, folder).of("one") is None


def test_a_score_of_weights_that_went_out_of_use_while_it_was_made_counts_for_nothing(
    model, tmp_path, studies
):
    scores, result = Scores(model, tmp_path / "scores"), model.screen(studies / "broken.nii.gz")
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.pt").symlink_to(model.bundle / "models" / "model.pt")
    (run / "log.csv").touch()
    calibration = Calibration.load(model.bundle / "models" / "calibration.json")
    replace(calibration, pixel_threshold=2 * calibration.pixel_threshold).save(
        run / "calibration.json"
    )
    model.versions.activate(model.versions.add(run, {}).name)
    scores.keep("one", result)
    assert scores.waiting(["one"]) == ["one"]


def test_a_damaged_score_is_made_anew(model, tmp_path, studies):
    scores = Scores(model, tmp_path / "scores")
    scores.keep("one", model.screen(studies / "broken.nii.gz"))
    (file,) = (tmp_path / "scores").iterdir()
    file.write_text(file.read_text()[:-10])
    assert scores.waiting(["one"]) == ["one"]


def test_what_monai_label_loads_brings_no_highdicom():
    """It needs pydicom 3, and MONAI Label pydicom 2."""
    code = "import sys, pathology_screen.label.fit, pathology_screen.label.scores; print('highdicom' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False"]
