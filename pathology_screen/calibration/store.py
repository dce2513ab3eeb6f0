"""A calibration: its thresholds, its file, what it belongs to, and what it says of a score."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest

from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.files import text_sha256, write_text

if TYPE_CHECKING:
    from pathology_screen.predictor import Predictor

SCHEMA_VERSION = 2
LARGEST_FILE, MOST_SLICES, LARGEST_VALUE = 2**25, 100_000, 1e6
"""Bounds on what is read: bytes of a file, slices in it, and the values of maps and scores."""
DEEPEST_IDENTITY = 8
STORED = {"pixel_fpr": "false_positive_rate", "achieved_pixel_fpr": "achieved_false_positive_rate"}
"""Names of fields in the file, where they differ."""


@dataclass(frozen=True)
class Rate:
    """A share `count` of `total`, with its exact 95 % interval (Clopper and Pearson 1934)."""

    count: int
    total: int
    low: float
    high: float


def count_rate(count: int, total: int) -> Rate:
    """Return the share `count` of `total`, with its interval."""
    interval = binomtest(count, total).proportion_ci(0.95, method="exact")
    return Rate(count, total, float(interval.low), float(interval.high))


def image_rank(people: int, subject_fpr: float) -> int:
    """Return the k for which the k-th highest score of so many healthy people is the image
    threshold (split conformal prediction); 0 where the people are too few for the rate."""
    return math.floor((people + 1) * subject_fpr + 1e-9)


def fewest_people(subject_fpr: float) -> int:
    """Return how many healthy people a false positive rate takes: n allow 1 / (n + 1) at best."""
    return math.ceil(1 / subject_fpr - 1e-9) - 1


def pixel_threshold(maps: np.ndarray, pixel_fpr: float) -> float:
    """Return the smallest of the values that at most this share of them exceeds."""
    allowed = math.floor(pixel_fpr * maps.size * (1 + 1e-12))  # 0.29 * 100 is 28.999999999999996
    rank = maps.size - 1 - allowed
    return float(np.partition(maps, rank, axis=None)[rank])


@dataclass(frozen=True)
class Calibration:
    """Pixel threshold and healthy score distribution, bound to what they were measured with.

    Attributes:
        pixel_threshold: a pixel is called abnormal where the anomaly map is *greater* than this.
        pixel_fpr: share of healthy pixels, background included, that may exceed the threshold.
        achieved_pixel_fpr: share that does: of "all_pixels" (at most `pixel_fpr`) and of
            "brain_pixels" (image above 0).
        scores: image score of each healthy slice.
        subjects: number of the subject, from 0, that each slice comes from; names are not kept.
        identity: what the numbers depend on, as JSON values (`Predictor.identity`).
        agreements: correlation of each healthy slice with its reconstruction
            (`metrics.brain_correlation`); none from a method that does not reconstruct.

    >>> people = tuple(range(19))
    >>> calibration = Calibration(1.0, 0.05, {}, tuple(map(float, people)), people, {})
    >>> calibration.image_threshold(0.05), calibration.percentile(18.0), calibration.p_value(20.0)
    (18.0, 100.0, 0.05)
    """

    pixel_threshold: float
    pixel_fpr: float
    achieved_pixel_fpr: dict[str, float]
    scores: tuple[float, ...]
    subjects: tuple[int, ...]
    identity: dict[str, Any]
    agreements: tuple[float, ...] = ()

    @property
    def n_subjects(self) -> int:
        return len(self.subject_scores)

    @cached_property
    def subject_scores(self) -> np.ndarray:
        """The highest score among the slices of each subject, ascending, (n_subjects,)."""
        people, numbers = np.unique(np.asarray(self.subjects), return_inverse=True)
        highest = np.full(len(people), -np.inf)
        np.maximum.at(highest, numbers, np.asarray(self.scores, float))
        return np.sort(highest)

    def percentile(self, score: float) -> float:
        """Return the percentage (0-100) of the healthy subjects whose score is at most this one."""
        return 100 * float(np.mean(self.subject_scores <= score))

    def p_value(self, score: float) -> float:
        """Return the conformal p-value of a new subject whose highest score is this one.

        For healthy subjects like those calibrated on, whatever the distribution of scores, it is at
        most alpha with probability at most alpha (Vovk, Gammerman and Shafer 2005). Subjects count,
        not slices, so the smallest value is 1 / (n_subjects + 1).
        """
        return float((1 + np.sum(self.subject_scores >= score)) / (1 + self.n_subjects))

    def above(self, threshold: float) -> Rate:
        """Return the share of the healthy subjects whose score exceeds a threshold."""
        return count_rate(int(np.sum(self.subject_scores > threshold)), self.n_subjects)

    def image_threshold(self, subject_fpr: float) -> float:
        """Return the score that a healthy subject exceeds with probability at most `subject_fpr`
        (split conformal prediction).

        Raises:
            ConfigError: if the rate does not lie between 0 and 1, or the subjects are too few for
                it: n allow 1 / (n + 1) at best.
        """
        if not 0 < subject_fpr < 1:
            raise ConfigError(
                f"the false positive rate must lie between 0 and 1, not {subject_fpr}"
            )
        n = self.n_subjects
        k = image_rank(n, subject_fpr)
        if k == 0:
            raise ConfigError(
                f"{n} healthy people allow a false positive rate of {1 / (n + 1):.3g} at best, "
                f"not {subject_fpr:g}: calibrate on {fewest_people(subject_fpr)} or more, "
                "or ask for a higher rate"
            )
        return float(self.subject_scores[n - k])

    def check_identity(self, identity: Mapping[str, Any]) -> None:
        """Refuse to be used with anything else than what the calibration was measured with.

        Raises:
            ArtifactError: names the entries that differ.
        """
        expected, given = _flat(self.identity), _flat(as_json(identity))
        differing = [
            f"{name} ({expected.get(name, 'absent')!s:.100} in the calibration, "
            f"{given.get(name, 'absent')!s:.100} here)"
            for name in sorted(expected.keys() | given.keys())
            if expected.get(name, "absent") != given.get(name, "absent")
        ]
        if differing:
            raise ArtifactError(
                f"the calibration belongs to something else: {'; '.join(differing)}"
            )

    @property
    def calibration_id(self) -> str:
        """sha256 of the content, in canonical JSON."""
        return text_sha256(_canonical(self._content()))

    def _content(self) -> dict[str, Any]:
        return {STORED.get(name, name): value for name, value in asdict(self).items()}

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON, whole or not at all."""
        head = {"schema_version": SCHEMA_VERSION, "calibration_id": self.calibration_id}
        write_text(path, json.dumps(head | self._content(), indent=2, allow_nan=False))

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read a calibration.

        Raises:
            ArtifactError: if the file is missing, damaged, altered, or of another version.
        """
        path = Path(path)
        name = path.name
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise ArtifactError(
                    f"{name} has more than {LARGEST_FILE} bytes: no calibration is that large"
                )
            content = json.loads(path.read_text())
            version, stored_id = content.pop("schema_version"), content.pop("calibration_id")
            actual_id = text_sha256(_canonical(content))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"{name} is not a calibration that can be read") from error
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"{name} has schema version {version}, this software reads {SCHEMA_VERSION}"
            )
        if actual_id != stored_id:
            raise ArtifactError(
                f"{name} was altered after it was written: its calibration_id does not match"
            )
        names = {STORED.get(field.name, field.name): field.name for field in fields(cls)}
        lists = ("scores", "subjects", "agreements")
        if content.keys() != names.keys() or not all(isinstance(content[k], list) for k in lists):
            raise ArtifactError(f"{name} lacks what a calibration holds")
        content |= {key: tuple(content[key]) for key in lists}
        found = cls(**{names[key]: value for key, value in content.items()})
        if fault := _fault(found):
            raise ArtifactError(f"{name} holds what is no calibration: {fault}")
        return found


def calibration_beside(predictor: "Predictor", file: str | Path | None = None) -> Calibration:
    """Load `calibration.json` beside the weights, or another file.

    Raises:
        ArtifactError: if it is missing, or belongs to other weights, preprocessing or scoring.
    """
    path = predictor.weights.with_name("calibration.json") if file is None else Path(file)
    if not path.is_file():
        raise ArtifactError(
            f"{path.name} is missing{' beside the weights' if file is None else ''}: scores mean "
            "nothing without it; run `calibrating` of train.json with the run's folder as "
            "output_dir"
        )
    calibration = Calibration.load(path)
    calibration.check_identity(predictor.identity)
    return calibration


def as_json(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as JSON gives it back."""
    return json.loads(_canonical(dict(identity)))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(value, dict):
        return {name: value}
    parts = (_flat(inner, f"{name}.{key}" if name else key) for key, inner in value.items())
    return {key: inner for part in parts for key, inner in part.items()}


def _fault(found: Calibration) -> str | None:
    """Return the name of a field that cannot be right; None where all can."""
    n, rates = len(found.scores), found.achieved_pixel_fpr
    sound = {
        "pixel_threshold": _numbers([found.pixel_threshold], 0) and found.pixel_threshold > 0,
        "false_positive_rate": _numbers([found.pixel_fpr], 0, 1) and 0 < found.pixel_fpr < 1,
        "achieved_false_positive_rate": isinstance(rates, dict) and _numbers(rates.values(), 0, 1),
        "scores": 0 < n <= MOST_SLICES and _numbers(found.scores),
        "subjects": len(found.subjects) == n
        and all(type(number) is int for number in found.subjects)
        and _numbers(found.subjects, 0, n - 1),
        "agreements": len(found.agreements) in (0, n) and _numbers(found.agreements),
        "identity": isinstance(found.identity, dict) and _depth(found.identity) <= DEEPEST_IDENTITY,
    }
    return next((name for name, is_sound in sound.items() if not is_sound), None)


def _numbers(
    values: Collection[Any], low: float = -LARGEST_VALUE, high: float = LARGEST_VALUE
) -> bool:
    """Tell whether all are numbers in this range, in which NaN does not lie."""
    return all(type(value) in (int, float) and low <= value <= high for value in values)


def _depth(value: Any) -> int:
    """Count how many lists and mappings lie within each other."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
        level = [part for part in inner if isinstance(part, dict | list)]
    return depth
