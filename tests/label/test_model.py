"""The app without a server: its options, models and scores."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scan_builders import dicom_datasets, head_volume, ras_affine, save
from servers import RATE

from pathology_screen.bundles import bundle_root
from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.label.app_folder import SHIPPED
from pathology_screen.label.model import Model, Options, find_models, read_study, study_path


@pytest.fixture
def model(tmp_path, tiny):
    return Model(tiny, tmp_path / "app", Options(rate=RATE))


@pytest.fixture
def retrain(model, tmp_path):
    """Function that makes another version active, the same weights with changes of calibration."""

    def make(**changes):
        run, shipped = tmp_path / "run", model.bundle / "models"
        run.mkdir()
        (run / "model.pt").symlink_to(shipped / "model.pt")
        (run / "log.csv").touch()
        calibration = Calibration.load(shipped / "calibration.json")
        replace(calibration, **changes).save(run / "calibration.json")
        model.versions.activate(model.versions.add(run, {}).name)

    return make


def test_options_are_read_from_words():
    assert Options.from_conf({"server_mode": "true"}) == Options()
    conf = {"models": "ra, vae", "rate": "0.1", "device": "cpu", "calibration": "mine.json"}
    assert Options.from_conf(conf) == Options(("ra", "vae"), 0.1, "cpu", Path("mine.json"))
    for conf, words in (
        ({"slices": "all"}, "there is no --conf slices; there are models"),
        ({"rate": "five"}, "'five' is not a number"),
    ):
        with pytest.raises(ConfigError, match=words):
            Options.from_conf(conf)


def test_bundles_without_weights_are_not_offered(tmp_path, tiny, monkeypatch):
    shutil.copytree(tiny, tmp_path / "ra")
    untrained = tmp_path / "vae"
    shutil.copytree(bundle_root("vae"), untrained, ignore=shutil.ignore_patterns("models", "runs"))
    monkeypatch.setattr("pathology_screen.label.model.bundles_folder", lambda: tmp_path)
    monkeypatch.setattr(
        "pathology_screen.label.model.bundle_root", lambda name: bundle_root(tmp_path / name)
    )
    assert [model.name for model in find_models(tmp_path, Options(rate=RATE))] == ["ra"]
    with pytest.raises(ArtifactError, match=r"no weights|no version"):
        find_models(tmp_path, Options(models=(str(untrained),)))
    with pytest.raises(ConfigError, match="neither a bundle"):
        find_models(tmp_path, Options(models=("unet",)))
    shutil.rmtree(tmp_path / "ra")
    with pytest.raises(ArtifactError, match="no bundle has weights"):
        find_models(tmp_path, Options())


def test_models_that_cannot_be_offered_together_are_told_at_the_start(tmp_path, tiny):
    copy = shutil.copytree(tiny, tmp_path / "tiny")
    both = (str(tiny), str(copy))
    for options, words in (
        (Options(both, RATE), "same name"),
        (Options(both[:1], 0.001), "people"),
        (Options(("ra", "vae"), calibration=tmp_path / "mine.json"), "one model"),
    ):
        with pytest.raises(ConfigError, match=words):
            find_models(tmp_path / "app", options)


def test_a_model_gives_what_the_screener_gives(model, screener, studies, tmp_path):
    found, expected = model.screen(studies / "lesion.png"), screener(studies / "lesion.png")
    for field in ("outcome", "score", "p_value"):
        assert getattr(found, field) == getattr(expected, field)
    np.testing.assert_array_equal(found.map_volume, expected.map_volume)
    np.testing.assert_array_equal(found.regions_volume, expected.regions_volume)
    assert expected.regions_volume.any()
    assert model.screen(tmp_path / "absent.nii.gz").code == "not_found"


def test_another_version_is_used_as_soon_as_it_is_active(model, retrain):
    before = model.screener()
    assert model.screener() is before
    retrain()  # the same weights under a name of their own
    after = model.screener()
    assert after is not before and model.screener() is after
    model.versions.activate(SHIPPED)
    assert model.screener() is not after


def test_scores_are_kept_without_the_name_of_the_study(model, studies):
    result = model.screen(studies / "lesion.png")
    assert model.waiting(["Jane Doe", "other"]) == ["Jane Doe", "other"]
    model.keep("Jane Doe", result)
    found = model.found("Jane Doe")
    told = found["outcome"], found["score"], found["code"]
    assert told == (result.outcome, result.score, None)
    assert model.waiting(["Jane Doe", "other"]) == ["other"]
    (file,) = model.scores.iterdir()
    assert "Jane" not in file.name + file.read_text()


def test_scores_of_other_settings_or_weights_and_damaged_ones_count_for_nothing(
    model, retrain, tmp_path, studies
):
    result = model.screen(studies / "broken.nii.gz")
    model.keep("one", result)
    assert model.found("one")["code"] == "not_finite"
    other = Model(model.bundle, tmp_path / "app", Options(rate=0.4))
    assert other.scores == model.scores and other.found("one") is None
    (file,) = model.scores.iterdir()
    file.write_text(file.read_text()[:-10])
    assert model.waiting(["one"]) == ["one"]

    retrain(pixel_threshold=2 * model.screener().judge.calibration.pixel_threshold)
    model.keep("one", result)  # of weights that went out of use while it was made
    assert model.waiting(["one"]) == ["one"]


def test_the_copy_that_is_made_at_the_first_look_goes(tmp_path):
    copy, kept = tmp_path / "copy.nii.gz", tmp_path / "kept.nii.gz"
    copy.touch()
    uris = iter([copy, kept])
    assert study_path(SimpleNamespace(get_image_uri=lambda name: next(uris)), "x") == kept
    assert not copy.exists()


def test_what_the_conversion_to_nifti_loses_comes_back(tmp_path):
    """MONAI Label keeps `UID.nii.gz`, and the series `UID/` beside it."""
    volume, path = head_volume(), tmp_path / "1.2.3.nii.gz"
    nib.save(nib.Nifti1Image(volume.transpose(2, 1, 0).astype(np.float32), ras_affine()), path)
    assert "modality" not in read_study(path).source  # of a scan without a series
    datasets = dicom_datasets(volume, ContrastBolusAgent="CANARY gadolinium")
    series = save(datasets, tmp_path / "1.2.3", "{}.dcm".format)
    scan = read_study(path)
    assert scan.source["format"] == "nifti" and scan.source["contrast_agent"] is True
    assert scan.source["echo_time"] == 4.6 and "CANARY" not in json.dumps(dict(scan.source))
    np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))

    for dicom in (series, series / "0.dcm"):
        with pytest.raises(ConfigError, match="DICOMweb"):
            read_study(dicom)
    (series / "3.dcm").unlink()
    with pytest.raises(InputError, match="missing_slice"):  # the conversion stacked what there was
        read_study(path)


def test_what_monai_label_loads_brings_no_highdicom():
    """It needs pydicom 3, and MONAI Label pydicom 2."""
    code = "import sys, pathology_screen.label.fit, pathology_screen.label.model, "
    code += "pathology_screen.io.headers; print('highdicom' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True).stdout.split() == [b"False"]
