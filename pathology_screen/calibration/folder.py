"""Fit the calibration on a folder of healthy scans, past the acceptance gate, and tell whether
these people score higher than those of the calibration beside the weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import betabinom, ks_2samp
from tqdm import tqdm

from pathology_screen.calibration.fit import calibrate
from pathology_screen.calibration.store import Calibration, Rate, image_rank
from pathology_screen.cohorts.folder import SUBJECT_LABEL
from pathology_screen.errors import InputError, fault, find_refusal
from pathology_screen.io import read_scan
from pathology_screen.predictor import Predictor
from pathology_screen.result import ScanContext
from pathology_screen.screening.batch import Item, list_items
from pathology_screen.screening.screener import prepare

ALARM = 0.05
"""Share of comparisons without drift in which there is an alarm, at most."""


class Drift(NamedTuple):
    """How healthy people of one place score under the calibration of another.

    Attributes:
        above: how many exceed the other's image threshold, or its highest score where its people
            are too few for a threshold.
        expected: how many would on average, without drift.
        p_value: probability that so many or more do, without drift (`exceedance_law`).
        distance: greatest difference of the two cumulative distributions of scores, 0 to 1.
        distance_p_value: p-value of this distance (Kolmogorov and Smirnov); no part in the alarm.
    """

    above: Rate
    expected: float
    p_value: float
    distance: float
    distance_p_value: float

    @property
    def alarm(self) -> bool:
        """Whether more exceed the threshold than chance explains (one-sided, at `ALARM`)."""
        return self.p_value <= ALARM


def exceedance_law(people: int, new: int, subject_fpr: float) -> Any:
    """Return the law (frozen, of scipy) of the number of new healthy people above the threshold of
    a calibration for a rate.

    Of n people calibrated on, the threshold is the k-th highest score. A new person like them
    exceeds it with a probability that itself is a draw of Beta(k, n - k + 1), whatever the
    distribution of scores, so that of m new people a number exceeds it that follows the
    beta-binomial law with these parameters. Without drift more than 5 % of them exceed the 5 %
    threshold of 20 people in a third of all comparisons, which therefore is no reason for alarm.
    Too few people for the rate have k = 1.
    """
    k = max(1, image_rank(people, subject_fpr))
    return betabinom(new, k, people - k + 1)


def measure_drift(shipped: Calibration, local: Calibration, subject_fpr: float = 0.05) -> Drift:
    """Compare the healthy of `local` with the image threshold of `shipped` for this rate."""
    k = max(1, image_rank(shipped.n_subjects, subject_fpr))
    above = local.above(float(shipped.subject_scores[-k]))
    law = exceedance_law(shipped.n_subjects, local.n_subjects, subject_fpr)
    test = ks_2samp(local.subject_scores, shipped.subject_scores)
    p_value = float(law.sf(above.count - 1))
    return Drift(above, float(law.mean()), p_value, float(test.statistic), float(test.pvalue))


class FolderCalibration(NamedTuple):
    """What `calibrate_on` found: the calibration, the scans that were left out by name, the drift
    from the calibration beside the weights (None where there is none), and the rate of people."""

    calibration: Calibration
    refused: Mapping[str, InputError]
    drift: Drift | None
    subject_fpr: float

    def report(self) -> str:
        """Say the same in words."""
        calibration = self.calibration
        threshold = calibration.image_threshold(self.subject_fpr)
        rate = calibration.above(threshold)
        lines = [
            f"{calibration.n_subjects} healthy people, {len(calibration.scores)} slices",
            f"image threshold {threshold:.4g}: a healthy person exceeds it with probability at "
            f"most {self.subject_fpr:g}; {rate.count} of these {rate.total} do (95 % interval of "
            f"the rate {rate.low:.3f} to {rate.high:.3f})",
            f"pixel threshold {calibration.pixel_threshold:.4g}: "
            f"{calibration.achieved_pixel_fpr['all_pixels']:.3f} of healthy pixels lie above",
            *(f"left out: {name}: {refusal}" for name, refusal in self.refused.items()),
        ]
        if drift := self.drift:
            above = drift.above
            verdict = (
                f"ALARM: chance does so in {ALARM:.0%} of comparisons at most; do not use that "
                "calibration on your scanner"
                if drift.alarm
                else "no alarm"
            )
            lines.append(
                f"drift: {above.count} of {above.total} exceed the image threshold of the "
                f"calibration beside the weights (95 % interval {above.low:.3f} to "
                f"{above.high:.3f}, {drift.expected:.2g} expected), p = {drift.p_value:.2g}: "
                f"{verdict}; distance of the two distributions of scores {drift.distance:.2f}, "
                f"p = {drift.distance_p_value:.2g}"
            )
        return "\n".join(lines)


def calibrate_on(
    normals: str | Path,
    output: str | Path,
    *,
    bundle: str | Path = "ra",
    weights: str | Path | None = None,
    profile: str = "compact",
    series_uid: str | None = None,
    axial_slice: bool = False,
    device: str = "cpu",
    names: str = "pseudonyms",
    subject_fpr: float = 0.05,
    pixel_fpr: float = 0.05,
) -> FolderCalibration:
    """Fit a calibration on scans of healthy people and write it.

    People count, not scans: scans of one DICOM PatientID, or below one BIDS folder `sub-...`, are
    one person; any other scan is a person of its own. Scans that the acceptance gate refuses are
    left out and named.

    Args:
        normals: scans, see `io.discover`.
        output: file of the calibration.
        bundle, weights, profile, device: see `Predictor.load`.
        series_uid, axial_slice: see `io.read_scan`.
        names: how scans that are left out are named, see `list_items`.
        subject_fpr: rate of false positives among healthy people that the calibration has to allow.
        pixel_fpr: share of healthy pixels that may lie in regions.

    Raises:
        ConfigError: if the people are too few for the rate; nothing is written then.
        InputError: if there is no scan, or all are refused.
    """
    predictor = Predictor.load(bundle, weights, profile, device)
    slices: list[dict[str, Any]] = []
    refused: dict[str, InputError] = {}
    items = list_items(normals, names=names, series_uid=series_uid)
    for item in tqdm(items, desc="reading", unit="scan"):
        try:
            scan = read_scan(item.scan.source, series_uid=item.series_uid, axial_slice=axial_slice)
            image = prepare(predictor, scan, ScanContext())
        except Exception as error:
            refused[item.name] = find_refusal(error) or fault(error)
        else:
            subject = scan.subject or _subject(item, Path(normals))
            slices.append({"image": image.as_tensor(), "subject": subject})
    if not slices:
        first = next(iter(refused.values()))
        raise InputError("empty", f"all {len(refused)} scans were refused, the first with: {first}")
    calibration = calibrate(predictor, slices, pixel_fpr)
    calibration.image_threshold(subject_fpr)  # or the people are too few
    calibration.save(output)
    drift = _drift(calibration, predictor, subject_fpr)
    return FolderCalibration(calibration, refused, drift, subject_fpr)


def _subject(item: Item, root: Path) -> str:
    below = item.path.relative_to(root if root.is_dir() else root.parent).as_posix()
    found = SUBJECT_LABEL.findall(below)
    return f"sub-{found[-1]}" if found else item.name


def _drift(local: Calibration, predictor: Predictor, subject_fpr: float) -> Drift | None:
    path = predictor.weights.with_name("calibration.json")
    shipped = Calibration.load(path) if path.is_file() else None
    if shipped is None or shipped.identity != local.identity:
        return None
    return measure_drift(shipped, local, subject_fpr)
