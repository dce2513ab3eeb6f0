"""Thresholds fitted on one's own healthy scans, and the alarm that these score higher."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scan_builders import dicom_datasets, save
from scipy.stats import ks_2samp

from pathology_screen.calibration import Calibration
from pathology_screen.calibration.folder import ALARM, calibrate_on, exceedance_law, measure_drift
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.predictor import Predictor
from pathology_screen.screening import Screener


@pytest.fixture
def bundle(predictor, monkeypatch):
    """The tiny bundle in place of a real one."""
    monkeypatch.setattr(Predictor, "load", lambda *arguments: predictor)
    return predictor


@pytest.fixture(scope="module")
def scans(slices, tmp_path_factory):
    """Two single slices as NIfTI, rows and columns as the pictures show them."""
    folder = tmp_path_factory.mktemp("scans")
    affine = np.array([[0, -1, 0, 98], [-1, 0, 0, 116], [0, 0, 1, 23], [0, 0, 0, 1]], float)
    paths = [folder / f"{path.stem}.nii.gz" for path in slices]
    for path, picture in zip(paths, slices):
        nib.save(nib.Nifti1Image(np.asarray(Image.open(picture))[..., None], affine), path)
    return paths


def fit(folder, file, **options):
    return calibrate_on(folder, file, axial_slice=True, **{"subject_fpr": 0.2} | options)


def slices_and_people(found):
    return len(found.calibration.scores), found.calibration.n_subjects


def place(root, names, scans):
    """Put the two scans in turn below a folder."""
    for number, name in enumerate(names):
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(scans[number % 2].read_bytes())
    return root


@pytest.fixture
def normals(scans, tmp_path):
    """Five scans of four people, as BIDS has them, and one that is damaged."""
    people = ("sub-1/ses-1", "sub-1/ses-2", "sub-2", "sub-3", "sub-4")
    root = place(tmp_path / "normals", [f"{person}/T1w" for person in people], scans)
    (root / "damaged.nii.gz").write_bytes(b"\x1f\x8b damaged")
    return root


def test_people_count_and_what_is_refused_is_named(bundle, normals, tmp_path):
    found = fit(normals, tmp_path / "calibration.json", names="paths")
    assert slices_and_people(found) == (5, 4)
    assert [(name, r.code) for name, r in found.refused.items()] == [("damaged", "unreadable")]
    assert Calibration.load(tmp_path / "calibration.json") == found.calibration
    assert found.calibration.agreements == pytest.approx([1] * 5)
    assert found.drift is None
    for part in ("4 healthy people, 5 slices", "left out: damaged", "0 of these 4"):
        assert part in found.report()


def test_a_folder_above_the_scans_is_no_person(bundle, scans, tmp_path):
    """Six people below `sub-cohort`, of whom BIDS knows two: one of them with two scans."""
    names = [f"p{number}/T1w" for number in range(4)]
    names += ["sub-7/ses-1/anat/T1w", "sub-7/ses-2/anat/T1w", "sub-8_T1w"]
    root = place(tmp_path / "sub-cohort" / "sub-site", names, scans)
    assert slices_and_people(fit(root, tmp_path / "calibration.json")) == (7, 6)


def test_scans_are_screened_by_it(bundle, normals, scans, tmp_path):
    found = fit(normals, tmp_path / "calibration.json")
    result = Screener(bundle, found.calibration, rate=0.2)(scans[0], axial_slice=True)
    assert result.outcome == "normal" and result.score in found.calibration.scores


def test_too_few_people_and_nothing_but_refused_scans_write_nothing(bundle, normals, tmp_path):
    file = tmp_path / "calibration.json"
    with pytest.raises(ConfigError, match="4 healthy people allow .* 0.2 at best"):
        fit(normals, file, subject_fpr=0.05)
    with pytest.raises(InputError, match="all 1 scans were refused, the first with: .unreadable"):
        fit(normals / "damaged.nii.gz", file)
    assert not file.exists()


def test_drift_from_the_calibration_beside_the_weights(bundle, normals, make_calibration, tmp_path):
    def fit_beside(calibration):
        calibration.save(bundle.weights.with_name("calibration.json"))
        return fit(normals, tmp_path / "mine.json")

    scores = np.linspace(0.001, 0.002, 20)
    found = fit_beside(make_calibration(scores))
    drift = found.drift
    assert (drift.above.count, drift.above.total, drift.distance) == (4, 4, 1)
    assert drift.above.low == pytest.approx(0.025 ** (1 / 4)) and drift.distance_p_value < 0.001
    assert drift.alarm and "ALARM" in found.report()
    found = fit_beside(make_calibration(scores + 1))
    assert not found.drift.alarm and "no alarm" in found.report()
    drift = fit_beside(make_calibration(scores[:3])).drift  # too few for a threshold
    assert drift.above.count == 4 and drift.expected == 1
    other = make_calibration(scores)
    identity = other.identity | {"weights_sha256": "0" * 64}
    assert fit_beside(replace(other, identity=identity)).drift is None


def test_dicom_series_of_one_patient_are_one_person(bundle, slices, tmp_path):
    pixels = np.asarray(Image.open(slices[0]))[None].astype("uint16")
    for number, patient in enumerate(("A", "A", "B", "C", "D")):
        pixels[0, 0, 0] = number  # five scans, not five copies of one
        series = dicom_datasets(pixels, PatientID=patient, series_uid=f"1.2.{number}")
        save(series, tmp_path / f"normals/{number}")
    file = tmp_path / "calibration.json"
    assert slices_and_people(fit(tmp_path / "normals", file)) == (5, 4)
    assert "A" not in file.read_text().split('"subjects"')[1].split("]")[0]


# --- drift ---

RUNS = 20_000


def simulated(people, new, shift=0.0):
    """Numbers of new people above the 5 % threshold of so many people, and the law of them."""
    rng = np.random.default_rng(people + new)
    k = max(1, int((people + 1) * 0.05))
    threshold = np.sort(rng.lognormal(size=(RUNS, people)))[:, -k]
    scores = np.exp(rng.normal(shift, size=(RUNS, new)))
    return (scores > threshold[:, None]).sum(axis=1), exceedance_law(people, new, 0.05)


@pytest.mark.parametrize("new", [10, 30, 100])
@pytest.mark.parametrize("people", [15, 20, 40])
def test_without_drift_there_is_an_alarm_in_at_most_5_percent(people, new):
    """15 people are too few for a threshold of 5 %: their highest score stands for it."""
    counts, law = simulated(people, new)
    alarms = (law.sf(counts - 1) <= ALARM).mean()
    assert alarms <= ALARM + 3 * np.sqrt(ALARM * (1 - ALARM) / RUNS)
    expected = law.pmf(np.arange(new + 1))
    found = np.bincount(counts, minlength=new + 1) / RUNS
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / RUNS))


@pytest.mark.parametrize(
    ("people", "new", "power"), [(15, 30, 0.9), (20, 10, 0.85), (20, 30, 0.9), (40, 100, 0.99)]
)
def test_people_who_score_two_standard_deviations_higher_give_an_alarm(people, new, power):
    counts, law = simulated(people, new, shift=2.0)
    assert (law.sf(counts - 1) <= ALARM).mean() > power


def test_more_than_the_rate_is_no_reason_for_an_alarm():
    """Without drift more than 5 % of 30 people exceed the threshold of 20 in a third of cases."""
    counts, _ = simulated(20, 30)
    assert 0.3 < (counts / 30 > 0.05).mean() < 0.4


def test_the_parts_of_a_drift(of_people):
    """The p-value by hand: X of two, of beta-binomial(2, 1, 20)."""
    shipped = of_people(range(1, 21))
    for scores, count, p_value in (
        ([20, 19], 0, 1.0),
        ([21, 19], 1, 1 - 20 / 22),
        ([21, 22], 2, 2 / (21 * 22)),
    ):
        drift = measure_drift(shipped, of_people(scores))
        assert (drift.above.count, drift.above.total) == (count, 2)
        assert drift.p_value == pytest.approx(p_value) and drift.alarm == (p_value <= 0.05)
        assert drift.expected == pytest.approx(2 / 21)
        test = ks_2samp(scores, range(1, 21))
        assert (drift.distance, drift.distance_p_value) == (test.statistic, test.pvalue)


def test_the_rate_decides_the_threshold(of_people):
    shipped, local = of_people(range(1, 21)), of_people([18.5] * 5)
    assert measure_drift(shipped, local, 0.05).above.count == 0
    drift = measure_drift(shipped, local, 0.15)  # of 20 people the third highest
    assert drift.above.count == 5 and drift.alarm
