"""Fit the thresholds on healthy scans of one's own scanner, and say how these differ from the
shipped ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import ks_2samp
from tqdm import tqdm

from pathology_screen.calibration import Calibration, Rate, count_rate
from pathology_screen.cohorts.folder import SUBJECT_LABEL
from pathology_screen.engines import calibrate
from pathology_screen.errors import InputError, fault, find_refusal
from pathology_screen.io import read_scan
from pathology_screen.predictor import Predictor
from pathology_screen.result import ScanContext
from pathology_screen.screening.batch import Item, list_items
from pathology_screen.screening.context import prepare


class Drift(NamedTuple):
    """How healthy people of one place score under the calibration of another.

    Attributes:
        above: how many exceed the other's image threshold; more than its rate of them is a drift.
        distance: greatest difference of the two cumulative distributions of scores (Kolmogorov and
            Smirnov), 0 to 1.
        p_value: of the test that both are samples of one distribution.
    """

    above: Rate
    distance: float
    p_value: float


class LocalCalibration(NamedTuple):
    """What `calibrate_on` found: the calibration, the scans that were left out by name, and the
    drift from the calibration beside the weights (None where there is none)."""

    calibration: Calibration
    refused: Mapping[str, InputError]
    drift: Drift | None
    rate: float

    def report(self) -> str:
        """The same in words."""
        calibration, rate = self.calibration, self.calibration.false_positives(self.rate)
        lines = [
            f"{calibration.n_subjects} healthy people, {calibration.n_slices} slices",
            f"image threshold {calibration.image_threshold(self.rate):.4g}: a healthy person exceeds it with "
            f"probability at most {self.rate:g}; {rate.count} of these {rate.total} do (95 % interval of the rate "
            f"{rate.low:.3f} to {rate.high:.3f})",
            f"pixel threshold {calibration.pixel_threshold:.4g}: "
            f"{calibration.achieved_false_positive_rate['all_pixels']:.3f} of healthy pixels lie above",
        ]
        lines += [f"left out: {name}: {refusal}" for name, refusal in self.refused.items()]
        if self.drift is not None:
            above = self.drift.above
            lines.append(
                f"drift: {above.count} of {above.total} exceed the image threshold of the calibration beside the "
                f"weights (95 % interval {above.low:.3f} to {above.high:.3f}, at most {self.rate:g} expected); "
                f"distance of the two distributions of scores {self.drift.distance:.2f}, p = {self.drift.p_value:.2g}"
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
    rate: float = 0.05,
    pixel_rate: float = 0.05,
) -> LocalCalibration:
    """Fit a calibration on scans of healthy people and write it.

    People count, not scans: scans of one DICOM PatientID, or below one BIDS folder `sub-...`, are
    one person; any other scan is a person of its own. Scans that the acceptance gate refuses are
    left out and named.

    Args:
        normals: scans, see `io.find_scans`.
        output: file of the calibration.
        bundle, weights, profile, device: see `Predictor.load`.
        series_uid, axial_slice: see `io.read_scan`.
        names: of the scans that are left out, see `list_items`.
        rate: of false positives among healthy people that the calibration has to allow.
        pixel_rate: share of healthy pixels that may lie in regions.

    Raises:
        ConfigError: if the people are too few for the rate; nothing is written then.
        InputError: if there is no scan, or all are refused.
    """
    predictor = Predictor.load(bundle, weights, profile, device)
    prepared: list[dict[str, Any]] = []
    refused: dict[str, InputError] = {}
    items = list_items(normals, names=names, series_uid=series_uid)
    for item in tqdm(items, desc="reading", unit="scan"):
        try:
            scan = read_scan(item.scan.source, series_uid=item.series_uid, axial_slice=axial_slice)
            image = prepare(predictor, {"image": scan}, ScanContext())
        except Exception as error:
            refusal = find_refusal(error) or fault(error)
            refused[item.name] = refusal
        else:
            subject = scan.subject or _subject(item, Path(normals))
            prepared.append({"image": image.as_tensor(), "subject": subject})
    if not prepared:
        first = next(iter(refused.values()))
        raise InputError("empty", f"all {len(refused)} scans were refused, the first with: {first}")
    calibration = calibrate(predictor, prepared, pixel_rate)
    calibration.image_threshold(rate)  # or the people are too few
    calibration.save(output)
    return LocalCalibration(calibration, refused, _drift(calibration, predictor, rate), rate)


def _subject(item: Item, root: Path) -> str:
    below = item.path.relative_to(root if root.is_dir() else root.parent).as_posix()
    found = SUBJECT_LABEL.findall(below)
    return f"sub-{found[-1]}" if found else item.name


def _drift(local: Calibration, predictor: Predictor, rate: float) -> Drift | None:
    path = predictor.weights.with_name("calibration.json")
    if not path.is_file():
        return None
    shipped = Calibration.load(path)
    if shipped.identity != local.identity:
        return None
    above = int((local.subject_scores > shipped.image_threshold(rate)).sum())
    test = ks_2samp(local.subject_scores, shipped.subject_scores)
    return Drift(count_rate(above, local.n_subjects), float(test.statistic), float(test.pvalue))
