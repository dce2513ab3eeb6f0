"""Pixel threshold, healthy score distribution and identity of a calibration."""

import dataclasses
import hashlib
import json
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.calibration import Calibration, count_rate, fit_calibration, pixel_threshold
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
    return fit_calibration(
        maps, images, SCORES, ["anna", "anna", "ben", "ben", "cleo", "cleo"], IDENTITY
    )


@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=200), percent=st.integers(1, 99))
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


def test_agreements_are_kept_and_have_to_be_those_of_the_slices(maps, tmp_path):
    images, names, agreements = np.ones_like(maps), list("aabbcc"), [0.9, 0.8, 0.7, 0.9, 0.8, 0.7]
    fitted = fit_calibration(maps, images, SCORES, names, IDENTITY, agreements=agreements)
    fitted.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json").agreements == tuple(agreements)
    with pytest.raises(ConfigError):
        fit_calibration(maps, images, SCORES, names, IDENTITY, agreements=agreements[:5])
    with pytest.raises(InputError, match="not_finite"):
        fit_calibration(maps, images, SCORES, names, IDENTITY, agreements=[*agreements[:5], np.nan])


def test_people_count_by_their_highest_slice(calibration):
    assert calibration.subject_scores.tolist() == [0.4, 0.5, 0.6]
    assert [calibration.percentile(score) for score in (0.3, 0.4, 0.55, 0.6)] == pytest.approx(
        [0, 100 / 3, 200 / 3, 100]
    )
    assert [calibration.p_value(score) for score in (0.3, 0.45, 0.6, 0.7)] == pytest.approx(
        [1, 3 / 4, 2 / 4, 1 / 4]
    )


@given(people=st.integers(1, 60), percent=st.integers(1, 60))
def test_the_image_threshold_is_exceeded_where_the_p_value_is_small(people, percent):
    scores = np.random.default_rng(people).random(people)
    fitted = Calibration(0.1, 0.05, {}, tuple(scores), tuple(range(people)), {})
    if percent * (people + 1) < 100:  # exact, in hundredths
        with pytest.raises(ConfigError, match=f"{people} healthy people"):
            fitted.image_threshold(percent / 100)
        return
    threshold = fitted.image_threshold(percent / 100)
    for score in (*scores, *(scores + 1e-9), *(scores - 1e-9), 0.0, 2.0):
        p_value = fitted.p_value(score)
        assert (score > threshold) == (p_value <= percent / 100 + 1e-12)


def test_the_fewest_people_for_a_rate(calibration):
    def fitted(people):
        return dataclasses.replace(
            calibration, scores=tuple(range(people)), subjects=tuple(range(people))
        )

    assert fitted(19).image_threshold(0.05) == 18 and fitted(99).image_threshold(0.01) == 98
    assert fitted(20).image_threshold(0.05) == 19 and fitted(39).image_threshold(0.05) == 37
    with pytest.raises(ConfigError, match="calibrate on 19 or more"):
        fitted(18).image_threshold(0.05)
    for rate in (0, 1, -1):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            fitted(19).image_threshold(rate)


def test_healthy_people_exceed_the_image_threshold_at_most_at_the_rate(calibration):
    """Of 19 people with three slices each, a new one exceeds it in 1 of 20 cases."""
    rng = np.random.default_rng(0)
    subjects = tuple(np.repeat(np.arange(19), 3).tolist())
    alarms = 0
    for _ in range(4000):
        scores = rng.lognormal(size=20)[:, None] + 0.1 * rng.random((20, 3))
        fitted = dataclasses.replace(
            calibration, scores=tuple(scores[:19].ravel().tolist()), subjects=subjects
        )
        alarms += scores[19].max() > fitted.image_threshold(0.05)
    assert alarms / 4000 == pytest.approx(0.05, abs=0.011)  # three standard errors


def test_exact_intervals_of_a_rate(calibration):
    fitted = dataclasses.replace(calibration, scores=tuple(range(39)), subjects=tuple(range(39)))
    rate = fitted.false_positives(0.05)
    assert (rate.count, rate.total) == (1, 39)
    assert (rate.low, rate.high) == pytest.approx((0.000649, 0.134767), abs=1e-5)
    assert count_rate(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_file_round_trip(tmp_path, calibration):
    path = tmp_path / "calibration.json"
    calibration.save(path)
    loaded = Calibration.load(path)
    assert loaded == calibration
    assert (
        loaded.calibration_id
        == calibration.calibration_id
        == json.loads(path.read_text())["calibration_id"]
    )
    assert list(tmp_path.iterdir()) == [path]
    assert "anna" not in path.read_text()


def test_id_depends_on_the_content(calibration):
    other = dataclasses.replace(calibration, pixel_threshold=calibration.pixel_threshold + 1e-9)
    assert other.calibration_id != calibration.calibration_id


def test_damaged_files_are_refused(tmp_path, calibration):
    path = tmp_path / "calibration.json"
    with pytest.raises(ArtifactError, match=r"calibration\.json"):
        Calibration.load(path)
    for text in ("", "[]", "{}", '{"schema_version": 2, "calibration_id": "", "scores": [NaN]}'):
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


def _nested(depth):
    value = "end"
    for _ in range(depth):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *[
            ({"pixel_threshold": value}, "no calibration: pixel_threshold")
            for value in (0, -1, 1e308, True, "0.1", None)
        ],
        *[({"false_positive_rate": value}, "false_positive_rate") for value in (0, 1, True, [])],
        *[
            ({"scores": value}, "scores")
            for value in ([], [10**400] * 6, [True] * 6, [[]] * 6, ["1"] * 6)
        ],
        *[
            ({"subjects": value}, "subjects")
            for value in ([], [0.5] * 6, [-1] * 6, [10**400] * 6, [True] * 6)
        ],
        *[({"agreements": value}, "agreements") for value in ([0.5], [10**400] * 6, ["a"] * 6)],
        *[({"identity": value}, "identity") for value in ([], "a", _nested(9), _nested(300))],
        *[
            ({"achieved_false_positive_rate": value}, "achieved")
            for value in ([], {"all_pixels": 2}, {"x": "y"})
        ],
        ({"scores": 5}, "lacks what"),
        ({"surplus": 5}, "lacks what"),
    ],
)
def test_what_is_no_calibration_is_refused_whatever_its_id(changes, message, calibration, tmp_path):
    """The id is that of the content: the file was not altered, but made so."""
    content = dataclasses.asdict(calibration) | changes
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    made = {
        "schema_version": 2,
        "calibration_id": hashlib.sha256(text.encode()).hexdigest(),
        **content,
    }
    (tmp_path / "calibration.json").write_text(json.dumps(made))
    with pytest.raises(ArtifactError, match=message):
        Calibration.load(tmp_path / "calibration.json")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"schema_version": 2, "x": ' + "9" * 5000 + "}"]
)
def test_what_no_parser_gets_through_is_refused(text, tmp_path):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ArtifactError, match="can be read"):
        Calibration.load(tmp_path / "calibration.json")


def test_a_calibration_of_millions_is_refused_and_one_of_many_is_quick(calibration, tmp_path):
    people = 3_000_000
    (tmp_path / "calibration.json").write_text(
        f'{{"scores": [{"0.25," * people}0], "subjects": [{"1000000," * people}0]}}'
    )
    start = time.process_time()
    with pytest.raises(ArtifactError, match="bytes"):
        Calibration.load(tmp_path / "calibration.json")
    many = dataclasses.replace(
        calibration,
        scores=tuple(np.linspace(0, 1, 100_000).tolist()),
        subjects=tuple(range(100_000)),
        agreements=(),
    )
    many.save(tmp_path / "calibration.json")
    loaded = Calibration.load(tmp_path / "calibration.json")
    assert (
        loaded.image_threshold(0.05) == pytest.approx(0.95, abs=1e-4)
        and loaded.n_subjects == 100_000
    )
    assert time.process_time() - start < 5


def test_maps_that_are_zero_almost_everywhere_have_no_threshold(maps):
    sparse = np.where(maps > 0.99, maps, 0)
    names = list("aabbcc")
    with pytest.raises(ConfigError, match="ask for a lower rate"):
        fit_calibration(sparse, np.ones_like(maps), SCORES, names, IDENTITY)


def test_identity_is_checked_by_value(calibration):
    calibration.check_identity(json.loads(json.dumps(IDENTITY)))
    other = IDENTITY | {
        "weights_sha256": "b" * 64,
        "scoring": {"perceptual": "st_alex:1", "equalize": True},
    }
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
