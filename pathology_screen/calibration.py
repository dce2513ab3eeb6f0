"""What healthy brains look like to one screening configuration: the pixel threshold and the healthy
image scores."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest

from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.files import replacing

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 2
LARGEST_FILE, MOST_SLICES, LARGEST_VALUE = 2**25, 100_000, 1e6
"""Bounds on what is read: bytes of a file, slices in it, and the values of maps and scores."""
DEEPEST_IDENTITY = 8


@dataclass(frozen=True)
class Rate:
    """A share of people.

    Attributes:
        count, total: so many of so many.
        low, high: its exact 95 % interval (Clopper and Pearson 1934).
    """

    count: int
    total: int
    low: float
    high: float


def count_rate(count: int, total: int) -> Rate:
    """The share `count` of `total`, with its interval."""
    interval = binomtest(count, total).proportion_ci(0.95, method="exact")
    return Rate(count, total, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Calibration:
    """Pixel threshold and healthy score distribution, bound to what they were measured with.

    Attributes:
        pixel_threshold: a pixel is called abnormal where the anomaly map is *greater* than this.
        false_positive_rate: the share of healthy pixels, background included, that was asked for.
        achieved_false_positive_rate: the share that exceeds the threshold: of "all_pixels" (never
            above the one asked for) and of "brain_pixels" (image above 0).
        scores: image score of each healthy slice.
        agreements: of each healthy slice with its reconstruction (`metrics.agreement`); none from a
            method that does not reconstruct.
        subjects: number of the subject, from 0, that each slice comes from; names are not kept.
        identity: what the numbers depend on, as JSON values: "weights_sha256", "preprocessing",
            "scoring", "level".
    """

    pixel_threshold: float
    false_positive_rate: float
    achieved_false_positive_rate: dict[str, float]
    scores: tuple[float, ...]
    subjects: tuple[int, ...]
    identity: dict[str, Any]
    agreements: tuple[float, ...] = ()

    @property
    def n_slices(self) -> int:
        return len(self.scores)

    @cached_property
    def n_subjects(self) -> int:
        return len(set(self.subjects))

    @property
    def calibration_id(self) -> str:
        """sha256 of the content, in canonical JSON."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()

    @cached_property
    def subject_scores(self) -> np.ndarray:
        """The highest score among the slices of each subject, ascending, (n_subjects,)."""
        people, numbers = np.unique(np.asarray(self.subjects), return_inverse=True)
        highest = np.full(len(people), -np.inf)
        np.maximum.at(highest, numbers, np.asarray(self.scores, float))
        return np.sort(highest)

    def percentile(self, score: float) -> float:
        """Percentage (0-100) of the healthy subjects whose score is at most this one."""
        return 100 * float(np.mean(self.subject_scores <= score))

    def p_value(self, score: float) -> float:
        """Conformal p-value of a new subject whose highest score is this one.

        For healthy subjects like those calibrated on, whatever the distribution of scores, it is at
        most alpha with probability at most alpha (Vovk, Gammerman and Shafer 2005). Subjects count,
        not slices, so the smallest value is 1 / (n_subjects + 1).
        """
        return float((1 + np.sum(self.subject_scores >= score)) / (1 + self.n_subjects))

    def image_threshold(self, rate: float) -> float:
        """The score that a healthy subject exceeds with probability at most `rate` (split conformal
        prediction).

        Args:
            rate: of false positives, between 0 and 1.

        Raises:
            ConfigError: if the subjects are too few for that rate: n allow 1 / (n + 1) at best.
        """
        if not 0 < rate < 1:
            raise ConfigError(f"the false positive rate must lie between 0 and 1, not {rate}")
        n = self.n_subjects
        rank = math.ceil((n + 1) * (1 - rate) - 1e-9)
        if rank > n:
            raise ConfigError(
                f"{n} healthy people allow a false positive rate of {1 / (n + 1):.3g} at best, not {rate:g}: calibrate "
                f"on {math.ceil(1 / rate - 1e-9) - 1} or more, or ask for a higher rate"
            )
        return float(self.subject_scores[rank - 1])

    def false_positives(self, rate: float) -> Rate:
        """Count the calibration's own subjects above the image threshold for `rate`."""
        return count_rate(
            int(np.sum(self.subject_scores > self.image_threshold(rate))), self.n_subjects
        )

    def check_identity(self, identity: Mapping[str, Any]) -> None:
        """Refuse to be used with anything else than what the calibration was measured with.

        Raises:
            ArtifactError: names the entries that differ.
        """
        expected, given = _flat(self.identity), _flat(_plain(identity))
        absent = "absent"
        differing = [
            f"{name} ({expected.get(name, absent)!s:.100} in the calibration, {given.get(name, absent)!s:.100} here)"
            for name in sorted(expected.keys() | given.keys())
            if expected.get(name, absent) != given.get(name, absent)
        ]
        if differing:
            raise ArtifactError(
                "the calibration belongs to something else: " + "; ".join(differing)
            )

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON, whole or not at all."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "calibration_id": self.calibration_id,
            **asdict(self),
        }
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(document, indent=2, allow_nan=False))

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration.

        Raises:
            ArtifactError: if the file is missing, damaged, altered by hand, or of another schema
                version.
        """
        path = Path(path)
        name = path.name
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise ArtifactError(
                    f"{name} has more than {LARGEST_FILE} bytes: no calibration is that large"
                )
            document = json.loads(path.read_text())
            version, stored_id = document.pop("schema_version"), document.pop("calibration_id")
            actual_id = hashlib.sha256(_canonical(document).encode()).hexdigest()
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
        try:
            lists = {key: tuple(document[key]) for key in ("scores", "subjects", "agreements")}
            found = cls(**document | lists)
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{name} lacks what a calibration holds") from error
        fault = _fault(found)
        if fault:
            raise ArtifactError(f"{name} holds what is no calibration: {fault}")
        return found


def fit_calibration(
    maps: np.ndarray | torch.Tensor,
    images: np.ndarray | torch.Tensor,
    scores: Sequence[float],
    subjects: Sequence[str],
    identity: Mapping[str, Any],
    false_positive_rate: float = 0.05,
    agreements: Sequence[float] = (),
) -> Calibration:
    """Fit the calibration on slices of healthy subjects who were not trained on.

    The threshold is the smallest number that at most the given share of all pixels of all slices
    exceeds, background included as in the paper (section 4.2), found exactly and not on a grid.

    Args:
        maps: anomaly maps, arrays or CPU tensors of shape (N, 1, H, W).
        images: the images, the same shape; above 0 is brain.
        scores: image score of each slice, N numbers.
        subjects: who each slice comes from, N names; only their number is kept.
        identity: what the maps depend on, as JSON values: "weights_sha256", "preprocessing" and
            "scoring" (`AnomalyMap.identity`).
        false_positive_rate: of pixels, between 0 and 1.
        agreements: of each slice with its reconstruction, N numbers, or none.

    Raises:
        ConfigError: if there are no slices, the lengths or shapes differ, or the rate is not
            between 0 and 1, or is higher than the share of pixels above 0.
        InputError: "not_finite", if a map or score is NaN or infinite; "no_tissue", if every image
            is empty.
    """
    maps, images = np.asarray(maps), np.asarray(images)
    if (
        maps.size == 0
        or maps.shape != images.shape
        or not len(scores) == len(subjects) == len(maps)
        or (len(agreements) not in (0, len(maps)))
    ):
        given = f"maps {maps.shape}, images {images.shape}, {len(scores)} scores and {len(subjects)} subjects"
        raise ConfigError(f"{given} do not go together")
    if not (images > 0).any():
        raise InputError("no_tissue", "in the images of the calibration set")
    if not 0 < false_positive_rate < 1:
        raise ConfigError(
            f"the false positive rate must lie between 0 and 1, not {false_positive_rate}"
        )
    if not (
        np.isfinite(maps).all() and np.isfinite(scores).all() and np.isfinite(agreements).all()
    ):
        raise InputError("not_finite", "the anomaly maps or scores of the calibration set")

    threshold = pixel_threshold(maps, false_positive_rate)
    if threshold <= 0:
        raise ConfigError(
            f"no more than {false_positive_rate:g} of all pixels lie above 0: ask for a lower rate"
        )
    exceeds, brain = maps > threshold, images > 0
    number = {subject: i for i, subject in enumerate(dict.fromkeys(subjects))}
    return Calibration(
        pixel_threshold=threshold,
        false_positive_rate=false_positive_rate,
        achieved_false_positive_rate={
            "all_pixels": float(exceeds.mean()),
            "brain_pixels": float(exceeds[brain].mean()),
        },
        scores=tuple(float(score) for score in scores),
        subjects=tuple(number[subject] for subject in subjects),
        identity=_plain(identity),
        agreements=tuple(float(agreement) for agreement in agreements),
    )


def pixel_threshold(maps: np.ndarray, false_positive_rate: float) -> float:
    """The smallest number that at most this share of all values exceeds; always one of the
    values."""
    allowed = math.floor(
        false_positive_rate * maps.size * (1 + 1e-12)
    )  # 0.29 * 100 is 28.999999999999996
    rank = maps.size - 1 - allowed
    return float(np.partition(maps, rank, axis=None)[rank])


def _fault(found: Calibration) -> str | None:
    """What of a calibration that was read can be none; None where all can."""
    rates = found.achieved_false_positive_rate
    faults = {
        "pixel_threshold": not _is_number(found.pixel_threshold) or found.pixel_threshold <= 0,
        "false_positive_rate": not _is_number(found.false_positive_rate)
        or not 0 < found.false_positive_rate < 1,
        "achieved_false_positive_rate": not (
            isinstance(rates, dict)
            and all(_is_number(rate) and 0 <= rate <= 1 for rate in rates.values())
        ),
        "scores": not 0 < len(found.scores) <= MOST_SLICES
        or not all(map(_is_number, found.scores)),
        "subjects": len(found.subjects) != len(found.scores)
        or not all(
            type(number) is int and 0 <= number < len(found.scores) for number in found.subjects
        ),
        "agreements": len(found.agreements) not in (0, len(found.scores))
        or not all(map(_is_number, found.agreements)),
        "identity": not isinstance(found.identity, dict)
        or _depth(found.identity) > DEEPEST_IDENTITY,
    }
    return next((name for name, is_fault in faults.items() if is_fault), None)


def _is_number(value: Any) -> bool:
    return (
        type(value) in (int, float) and -LARGEST_VALUE <= value <= LARGEST_VALUE
    )  # which NaN does not lie between


def _depth(value: Any) -> int:
    """How many lists and mappings lie within each other."""
    depth, inner = 0, [value]
    while inner:
        depth += 1
        inner = [
            part
            for one in inner
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, dict | list)
        ]
    return depth


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as JSON gives it back."""
    return json.loads(_canonical(dict(identity)))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(value, dict):
        return {name: value}
    return {
        k: v
        for key, inner in value.items()
        for k, v in _flat(inner, f"{name}.{key}" if name else key).items()
    }
