"""Pixel threshold, healthy score distribution and identity of a calibration."""

import dataclasses
import json
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.calibration import Calibration, fit_calibration, pixel_threshold
from pathology_screen.errors import ArtifactError, ConfigError, InputError

SCORES = [0.5, 0.1, 0.4, 0.2, 0.6, 0.3]
IDENTITY = {
    "weights_sha256": "a" * 64,
    "preprocessing": {"grid": "isotropic", "size": 128, "levels": (10, 12)},
    "scoring": {"perceptual": "none", "equalize": True, "sigma": 2.0},
}


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(0).random((6, 1, 16, 16), dtype=np.float32)


@pytest.fixture
def calibration(maps) -> Calibration:
    images = np.ones_like(maps)
    images[..., :8] = 0
    return fit_calibration(maps, images, SCORES, ["anna", "anna", "ben", "ben", "cleo", "cleo"], IDENTITY)


@given(
    values=st.lists(st.integers(0, 20), min_size=1, max_size=200),
    percent=st.integers(1, 99),
)
def test_threshold_is_the_smallest_that_keeps_the_rate(values, percent):
    maps = np.array(values, np.float32)
    threshold = pixel_threshold(maps, percent / 100)
    allowed = percent * len(values)  # exact, in hundredths
    assert 100 * (maps > threshold).sum() <= allowed
    smaller = maps[maps < threshold]
    if smaller.size:
        assert 100 * (maps > smaller.max()).sum() > allowed
    assert threshold in maps


def test_threshold_of_known_values():
    assert pixel_threshold(np.arange(100), 0.05) == 94
    assert pixel_threshold(np.arange(100), 0.29) == 70
    assert pixel_threshold(np.zeros((2, 3)), 0.05) == 0


def test_thousand_maps_take_less_than_a_second():
    maps = np.random.default_rng(0).random((1000, 1, 128, 128), dtype=np.float32)
    start = time.process_time()
    threshold = pixel_threshold(maps, 0.05)
    assert time.process_time() - start < 1
    assert threshold == pytest.approx(0.95, abs=1e-3)


def test_achieved_rates(maps, calibration):
    exceeds = maps > calibration.pixel_threshold
    assert exceeds.mean() == calibration.achieved_false_positive_rate["all_pixels"] <= 0.05
    assert calibration.achieved_false_positive_rate["brain_pixels"] == exceeds[..., 8:].mean()


def test_scores_and_subjects(calibration):
    assert calibration.scores == tuple(SCORES)
    assert calibration.subjects == (0, 0, 1, 1, 2, 2)
    assert (calibration.n_slices, calibration.n_subjects) == (6, 3)


def test_tensors_are_taken_too(maps, calibration):
    images = torch.ones(maps.shape)
    images[..., :8] = 0
    names = ["anna", "anna", "ben", "ben", "cleo", "cleo"]
    assert fit_calibration(torch.from_numpy(maps), images, SCORES, names, IDENTITY) == calibration


def test_percentile(calibration):
    ordered = sorted(calibration.scores)
    assert calibration.percentile(ordered[0] - 1) == 0
    assert calibration.percentile(ordered[2]) == 50
    assert calibration.percentile(ordered[-1]) == 100


def test_p_value_counts_each_subject_once(calibration):
    shared = dataclasses.replace(calibration, scores=(1.0, 3.0, 3.0, 3.0, 1.0), subjects=(0, 0, 1, 1, 2))
    assert shared.p_value(2.0) == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert shared.p_value(9.0) == pytest.approx(1 / 4)
    assert shared.p_value(0.0) == 1


def test_p_value_holds_its_level_with_the_fewest_subjects(calibration):
    """Nineteen subjects of three alike slices each: a healthy slice gets p <= 0.05 in at most 5 % of the cases."""
    rng = np.random.default_rng(0)
    subjects = tuple(np.repeat(np.arange(19), 3).tolist())
    alarms = 0
    for _ in range(2000):
        scores = rng.lognormal(size=20)[:, None] + 0.1 * rng.random((20, 3))
        fitted = dataclasses.replace(calibration, scores=tuple(scores[:19].ravel().tolist()), subjects=subjects)
        alarms += fitted.p_value(scores[19, 0]) <= 0.05
    assert 0.02 < alarms / 2000 < 0.06  # expected at most 0.05, standard error 0.005


def test_file_round_trip(tmp_path, calibration):
    path = tmp_path / "calibration.json"
    calibration.save(path)
    loaded = Calibration.load(path)
    assert loaded == calibration
    assert loaded.calibration_id == calibration.calibration_id == json.loads(path.read_text())["calibration_id"]
    assert list(tmp_path.iterdir()) == [path]
    assert "anna" not in path.read_text()


def test_id_depends_on_the_content(calibration):
    other = dataclasses.replace(calibration, pixel_threshold=calibration.pixel_threshold + 1e-9)
    assert other.calibration_id != calibration.calibration_id


def test_damaged_files_are_refused(tmp_path, calibration):
    path = tmp_path / "calibration.json"
    with pytest.raises(ArtifactError, match=r"calibration\.json"):
        Calibration.load(path)
    for text in ("", "[]", "{}", '{"schema_version": 1, "calibration_id": "", "scores": [NaN]}'):
        path.write_text(text)
        with pytest.raises(ArtifactError, match="can be read"):
            Calibration.load(path)
    calibration.save(path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"pixel_threshold": 0.5}))
    with pytest.raises(ArtifactError, match="altered"):
        Calibration.load(path)
    path.write_text(json.dumps(document | {"schema_version": 99}))
    with pytest.raises(ArtifactError, match="version 99"):
        Calibration.load(path)


def test_identity_is_checked_by_value(calibration):
    calibration.check_identity(json.loads(json.dumps(IDENTITY)))
    other = IDENTITY | {"weights_sha256": "b" * 64, "scoring": {"perceptual": "st_alex:1", "equalize": True}}
    with pytest.raises(ArtifactError) as refusal:
        calibration.check_identity(other)
    message = str(refusal.value)
    assert "weights_sha256" in message
    assert "scoring.perceptual (none in the calibration, st_alex:1 here)" in message
    assert "scoring.sigma (2.0 in the calibration, absent here)" in message
    assert "equalize" not in message
    assert "preprocessing" not in message


def test_sets_that_cannot_calibrate_are_refused(maps):
    images, names = np.ones_like(maps), list("aabbcc")
    broken = maps.copy()
    broken[3, 0, 2, 2] = np.nan
    with pytest.raises(InputError) as refusal:
        fit_calibration(broken, images, SCORES, names, IDENTITY)
    assert refusal.value.code == "not_finite"
    with pytest.raises(InputError):
        fit_calibration(maps, images, [*SCORES[:5], np.inf], names, IDENTITY)
    with pytest.raises(InputError) as refusal:
        fit_calibration(maps, images * 0, SCORES, names, IDENTITY)
    assert refusal.value.code == "no_tissue"
    for arguments in (
        (maps[:0], images[:0], [], []),
        (maps, images[:5], SCORES, names),
        (maps, images, SCORES, names[:5]),
        (maps, images, SCORES[:5], names),
    ):
        with pytest.raises(ConfigError):
            fit_calibration(*arguments, IDENTITY)
    for rate in (0, 1, 5):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            fit_calibration(maps, images, SCORES, names, IDENTITY, false_positive_rate=rate)
