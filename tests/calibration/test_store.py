"""The thresholds of a calibration, its file, its identity, and what it says of a score."""

import hashlib
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.bundles import bundle_root
from pathology_screen.calibration import (
    Calibration,
    calibration_beside,
    count_rate,
    fewest_people,
    pixel_threshold,
)
from pathology_screen.errors import ArtifactError, ConfigError

SHIPPED = bundle_root("ra") / "models" / "calibration.json"


def canonical(content):
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def test_people_count_by_their_highest_slice(calibration):
    assert calibration.subject_scores.tolist() == [0.4, 0.5, 0.6] and calibration.n_subjects == 3
    percentiles = [calibration.percentile(score) for score in (0.3, 0.4, 0.55, 0.6)]
    assert percentiles == pytest.approx([0, 100 / 3, 200 / 3, 100])
    p_values = [calibration.p_value(score) for score in (0.3, 0.45, 0.6, 0.7)]
    assert p_values == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])


def test_file_round_trip(tmp_path, calibration):
    path = tmp_path / "calibration.json"
    calibration.save(path)
    loaded, document = Calibration.load(path), json.loads(path.read_text())
    assert loaded == calibration and list(tmp_path.iterdir()) == [path]
    assert loaded.calibration_id == calibration.calibration_id == document["calibration_id"]
    assert "anna" not in path.read_text()
    other = replace(calibration, pixel_threshold=calibration.pixel_threshold + 1e-9)
    assert other.calibration_id != calibration.calibration_id


def test_the_shipped_file_is_written_as_it_was_read(tmp_path):
    """Names of fields and identity of files that exist stay as they are."""
    Calibration.load(SHIPPED).save(tmp_path / "calibration.json")
    written, shipped = (
        (path / "calibration.json").read_text() for path in (tmp_path, SHIPPED.parent)
    )
    assert json.loads(written) == json.loads(shipped)


def test_damaged_files_are_refused(tmp_path, calibration):
    path = tmp_path / "calibration.json"
    with pytest.raises(ArtifactError, match=r"calibration\.json"):
        Calibration.load(path)
    for text in (
        *("", "\xff{", "[]", "{}", '{"schema_version": 2, "calibration_id": "", "scores": [NaN]}'),
        *("[" * 100_000, '{"a":' * 100_000, '{"schema_version": 2, "x": ' + "9" * 5000 + "}"),
    ):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ArtifactError, match="can be read"):
            Calibration.load(path)
    calibration.save(path)
    document = json.loads(path.read_text())
    for change, message in (
        ({"pixel_threshold": 0.5}, "altered"),
        ({"schema_version": 99}, "version 99"),
    ):
        path.write_text(json.dumps(document | change))
        with pytest.raises(ArtifactError, match=message):
            Calibration.load(path)


NESTED = ['{"in": ' * depth + '"end"' + "}" * depth for depth in (9, 300)]
IMPOSSIBLE = {
    "pixel_threshold": [0, -1, 1e308, True, "0.1", None],
    "false_positive_rate": [0, 1, True, []],
    "achieved_false_positive_rate": [[], {"all_pixels": 2}, {"x": "y"}],
    "scores": [[], [10**400] * 6, [True] * 6, [[]] * 6, ["1"] * 6],
    "subjects": [[], [0.5] * 6, [-1] * 6, [10**400] * 6, [True] * 6],
    "agreements": [[0.5], [10**400] * 6, ["a"] * 6],
    "identity": [[], "a", *map(json.loads, NESTED)],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *[({k: value}, f"no calibration: {k}") for k, it in IMPOSSIBLE.items() for value in it],
        ({"scores": 5}, "lacks what"),
        ({"surplus": 5}, "lacks what"),
    ],
)
def test_what_is_no_calibration_is_refused_whatever_its_id(changes, message, calibration, tmp_path):
    """The id is that of the content: the file was not altered, but made so."""
    path = tmp_path / "calibration.json"
    calibration.save(path)
    content = json.loads(path.read_text()) | changes
    del content["schema_version"], content["calibration_id"]
    made = {"calibration_id": hashlib.sha256(canonical(content).encode()).hexdigest(), **content}
    path.write_text(json.dumps({"schema_version": 2, **made}))
    with pytest.raises(ArtifactError, match=message):
        Calibration.load(path)


def test_a_calibration_of_millions_is_refused_and_one_of_many_is_quick(of_people, tmp_path):
    path, people = tmp_path / "calibration.json", 3_000_000
    path.write_text(f'{{"scores": [{"0.25," * people}0], "subjects": [{"1000000," * people}0]}}')
    start = time.process_time()
    with pytest.raises(ArtifactError, match="bytes"):
        Calibration.load(path)
    of_people(np.linspace(0, 1, 100_000)).save(path)
    loaded = Calibration.load(path)
    assert loaded.image_threshold(0.05) == pytest.approx(0.95, abs=1e-4)
    assert loaded.n_subjects == 100_000 and time.process_time() - start < 5


def test_identity_is_checked_by_value(calibration):
    identity = json.loads(json.dumps(calibration.identity))
    calibration.check_identity(identity)
    scoring = {"perceptual": "st_alex:1", "equalize": True}
    with pytest.raises(ArtifactError) as refusal:
        calibration.check_identity(identity | {"weights_sha256": "b" * 64, "scoring": scoring})
    message = str(refusal.value)
    assert "weights_sha256" in message
    assert "scoring.perceptual (none in the calibration, st_alex:1 here)" in message
    assert "scoring.sigma (2.0 in the calibration, absent here)" in message
    assert "equalize" not in message and "preprocessing" not in message


def test_the_calibration_beside_the_weights(predictor, make_calibration):
    file = predictor.weights.with_name("calibration.json")
    make_calibration().save(file)
    assert calibration_beside(predictor).n_subjects == 20
    slice_options = {**predictor.slice_options, "plane_mm": 30.0}
    with pytest.raises(ArtifactError, match=r"slice\.plane_mm"):
        calibration_beside(replace(predictor, slice_options=slice_options))
    with pytest.raises(ArtifactError, match="equalize"):
        calibration_beside(replace(predictor, scoring=AnomalyMap("none")))
    predictor.weights.write_bytes(b"other weights")
    with pytest.raises(ArtifactError, match="weights_sha256"):
        calibration_beside(predictor)
    file.unlink()
    with pytest.raises(ArtifactError, match="run `calibrating`"):
        calibration_beside(predictor)


# --- thresholds ---


@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=200), percent=st.integers(1, 99))
def test_pixel_threshold_is_the_smallest_that_keeps_the_rate(values, percent):
    maps = np.array(values, np.float32)
    threshold = pixel_threshold(maps, percent / 100)
    allowed = percent * len(values)  # exact, in hundredths
    assert 100 * (maps > threshold).sum() <= allowed
    smaller = maps[maps < threshold]
    if smaller.size:
        assert 100 * (maps > smaller.max()).sum() > allowed
    assert threshold in maps


def test_known_pixel_thresholds_and_one_of_a_thousand_maps_in_less_than_a_second():
    assert pixel_threshold(np.arange(100), 0.05) == 94
    assert pixel_threshold(np.arange(100), 0.29) == 70
    assert pixel_threshold(np.zeros((2, 3)), 0.05) == 0
    maps = np.random.default_rng(0).random((1000, 1, 128, 128), dtype=np.float32)
    start = time.process_time()
    threshold = pixel_threshold(maps, 0.05)
    assert time.process_time() - start < 1
    assert threshold == pytest.approx(0.95, abs=1e-3)


@given(people=st.integers(1, 60), percent=st.integers(1, 60))
def test_the_image_threshold_is_exceeded_where_the_p_value_is_small(people, percent):
    scores = np.random.default_rng(people).random(people)
    fitted = Calibration(0.1, 0.05, {}, tuple(scores), tuple(range(people)), {})
    if percent * (people + 1) < 100:  # exact, in hundredths
        assert people < fewest_people(percent / 100)
        with pytest.raises(ConfigError, match=f"{people} healthy people"):
            fitted.image_threshold(percent / 100)
        return
    assert people >= fewest_people(percent / 100)
    threshold = fitted.image_threshold(percent / 100)
    for score in (*scores, *(scores + 1e-9), *(scores - 1e-9), 0.0, 2.0):
        assert (score > threshold) == (fitted.p_value(score) <= percent / 100 + 1e-12)


def test_the_fewest_people_for_a_rate(of_people):
    assert (fewest_people(0.05), fewest_people(0.01), fewest_people(0.1)) == (19, 99, 9)
    known = [(19, 0.05, 18), (99, 0.01, 98), (20, 0.05, 19), (39, 0.05, 37)]
    for people, rate, threshold in known:
        assert of_people(range(people)).image_threshold(rate) == threshold
    with pytest.raises(ConfigError, match="calibrate on 19 or more"):
        of_people(range(18)).image_threshold(0.05)
    for rate in (0, 1, -1):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            of_people(range(19)).image_threshold(rate)


def test_healthy_people_exceed_the_image_threshold_at_most_at_the_rate():
    """Of 19 people with three slices each, a new one exceeds it in 1 of 20 cases."""
    rng, alarms = np.random.default_rng(0), 0
    subjects = tuple(np.repeat(np.arange(19), 3).tolist())
    for _ in range(4000):
        scores = rng.lognormal(size=20)[:, None] + 0.1 * rng.random((20, 3))
        fitted = Calibration(0.1, 0.05, {}, tuple(scores[:19].ravel().tolist()), subjects, {})
        alarms += scores[19].max() > fitted.image_threshold(0.05)
    assert alarms / 4000 == pytest.approx(0.05, abs=0.011)  # three standard errors


def test_exact_intervals_of_a_rate(of_people):
    fitted = of_people(range(39))
    rate = fitted.above(fitted.image_threshold(0.05))
    assert (rate.count, rate.total) == (1, 39)
    assert (rate.low, rate.high) == pytest.approx((0.000649, 0.134767), abs=1e-5)
    assert count_rate(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
