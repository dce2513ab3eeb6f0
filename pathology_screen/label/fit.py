"""Fit new weights on people whom readers found healthy: prepare, train, calibrate, compare, use if
better."""

import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import Dataset
from scipy.stats import binom
from tqdm import tqdm

from pathology_screen.bundles import read_settings
from pathology_screen.calibration import calibration_beside, fewest_people
from pathology_screen.cohorts.folder import SUBJECT_LABEL
from pathology_screen.errors import ConfigError, find_refusal
from pathology_screen.label.app_folder import Version, Versions
from pathology_screen.label.model import read_study, study_path
from pathology_screen.predictor import Predictor
from pathology_screen.result import ScanContext
from pathology_screen.screening import Screener
from pathology_screen.screening.screener import prepare

SHARES = {"training": 0.4, "validation": 0.1, "calibration": 0.4, "test": 0.1}
"""Probability with which a person belongs to each section. The new weights are chosen among epochs
on "validation" and compared with the old ones on "test": the choice does not flatter them."""
LEAST_GAIN = 0.01
"""By how much, relative, the error has to fall for the new weights to be better."""
AS_SCREENED = ("network_def", "slice", "preprocessing", "scoring")
"""What the training has to have in common with screening, whatever else `train.json` is for."""
READING, NORMAL = "reading", "normal"
"""Entry of a study's info for a reader's finding, and its value for a healthy person."""
Sections = Mapping[str, Sequence[Mapping[str, Any]]]


class Study(NamedTuple):
    """A scan of the datastore, and whose it is (a name that is written nowhere)."""

    path: Path
    person: str


def normal_studies(datastore: Any) -> list[Study]:
    """List the studies of a `monailabel` Datastore that readers marked as normal, in order of ids.

    A person is told by the entry `subject` of the study's info; else by the PatientID that MONAI
    Label keeps of a DICOM series; else by `sub-LABEL` in the id; others are on their own.
    """
    infos = {name: datastore.get_image_info(name) for name in sorted(datastore.list_images())}
    normal = {name: info for name, info in infos.items() if info.get(READING) == NORMAL}
    return [Study(study_path(datastore, name), _person(name, normal[name])) for name in normal]


def _person(name: str, info: dict[str, Any]) -> str:
    for key in ("subject", "PatientID"):
        stated = str(info.get(key, "")).strip()
        if stated not in ("", "UNK"):
            return f"{key}:{stated}"
    label = SUBJECT_LABEL.search(name)
    return f"subject:{label[1]}" if label else f"study:{name}"


class Settings(NamedTuple):
    """What may be asked of a training; None leaves it to the bundle."""

    max_epochs: int | None = None  # at least 1
    learning_rate: float | None = None  # between 0 and 1
    pretrained: bool = True  # start from the weights in use, not from new ones
    device: str | None = None  # of torch

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Settings":
        """Take from a request what belongs here, and check it: nothing of it may reach the
        configuration as an expression. ConfigError if a value makes no sense."""
        given = {name: request[name] for name in cls._fields if request.get(name) is not None}
        asked = cls(**given)
        epochs, rate = asked.max_epochs, asked.learning_rate
        if epochs is not None and not (type(epochs) is int and epochs >= 1):
            raise ConfigError(f"max_epochs is a whole number of at least 1, not {epochs!r}")
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate < 1):
            raise ConfigError(f"learning_rate is a number between 0 and 1, not {rate!r}")
        if not isinstance(asked.pretrained, bool):
            raise ConfigError(f"pretrained is true or false, not {asked.pretrained!r}")
        try:
            torch.zeros(1, device=asked.device or "cpu")
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ConfigError(f"the device {asked.device!r} cannot be used") from error
        return asked


def section_of(person: str) -> str:
    """The section of a person: a function of the name alone, so that nobody moves to another
    section when more people are marked. Weights that are trained on from an earlier version have
    therefore never seen those who calibrate."""
    place = int.from_bytes(hashlib.sha256(person.encode()).digest()[:8], "big") / 2**64
    bounds = np.cumsum(list(SHARES.values()))[:-1]
    return list(SHARES)[int(np.searchsorted(bounds, place, side="right"))]


def check_people(counts: Mapping[str, int], rate: float) -> None:
    """Raise ConfigError where a section has nobody, or too few calibrate for this rate."""
    needed = dict.fromkeys(SHARES, 1) | {"calibration": fewest_people(rate)}
    missing = {name: max(0, number - counts.get(name, 0)) for name, number in needed.items()}
    if not any(missing.values()):
        return

    def risk(more: int) -> float:
        """A bound on the probability with which so many more leave a section short."""
        return sum(binom.cdf(n - 1, more, SHARES[name]) for name, n in missing.items())

    more = next(more for more in count(1) if risk(more) <= 0.05)
    have = ", ".join(f"{name} {counts.get(name, 0)} of {n}" for name, n in needed.items())
    raise ConfigError(
        f"{sum(counts.values())} people are too few for a rate of {rate:g} ({have}): "
        f"mark about {more} more as normal, or ask for a higher rate"
    )


def fit_version(
    versions: Versions, studies: Sequence[Study], settings: Settings, rate: float
) -> Version:
    """Train on studies of healthy people, and use the new weights from now on if they paint
    held-out people better.

    The scans go through the reader, the acceptance gate and the preprocessing of screening; those
    that are refused are left out and counted. The bundle's own training configuration trains,
    chooses the epoch and calibrates, for a rate of false positives among healthy people.

    Gives the new version, whether it is better or not. Its `facts`: `trained`, when;
    `started_from`, a version or None; `settings`; `people` by section; `refused`, how many scans by
    code; `error`, the mean squared error on the "test" people of the version in use ("old"; its
    name is `compared_with`) and of the new one; `better`, whether the new one is now in use.
    ConfigError if the people are too few; ArtifactError if the weights in use are damaged.
    """
    check_people(Counter(map(section_of, {study.person for study in studies})), rate)
    old = versions.active()
    before = Predictor.load(versions.bundle, old.weights)
    sections, refused = _prepare(studies, before)
    people = {name: len({one["subject"] for one in items}) for name, items in sections.items()}
    check_people(people, rate)

    run = versions.folder / "training"
    shutil.rmtree(run, ignore_errors=True)  # of a training that was killed
    try:
        workflow = _workflow(versions.bundle, str(run), settings, sections, before)
        workflow.initialize()
        workflow.run()
        after = Predictor.load(versions.bundle, run / "model.pt")
        Screener(after, calibration_beside(after), rate)  # the server will have to
        test = sections["test"]
        errors = {"old": _healthy_error(before, test), "new": _healthy_error(after, test)}
        better = errors["new"] < (1 - LEAST_GAIN) * errors["old"]
        facts = {
            "trained": datetime.now(UTC).isoformat(timespec="seconds"),
            "started_from": old.name if settings.pretrained else None,
            "settings": settings._asdict(),
            "people": people,
            "refused": refused,
            "compared_with": old.name,
            "error": errors,
            "better": better,
        }
        new = versions.add(run, facts)
    finally:
        shutil.rmtree(run, ignore_errors=True)
    return versions.activate(new.name) if better else new


def _prepare(studies: Sequence[Study], predictor: Predictor) -> tuple[Sections, dict[str, int]]:
    """Slices of each section, `image` and `subject` (a number); and refusals, counted by code."""
    people = list(dict.fromkeys(study.person for study in studies))
    sections: dict[str, list[dict[str, Any]]] = defaultdict(list)
    refused: Counter[str] = Counter()
    for study in tqdm(studies, desc="preparing", unit="scan"):
        try:
            image = prepare(predictor, read_study(study.path), ScanContext())
        except Exception as error:  # MONAI wraps what a transform raises in a RuntimeError
            refusal = find_refusal(error)
            if refusal is None:
                raise
            refused[refusal.code] += 1
        else:
            item = {"image": image.as_tensor(), "subject": str(people.index(study.person))}
            sections[section_of(study.person)].append(item)
    return sections, dict(refused)


def _workflow(
    bundle: Path, output: str, settings: Settings, sections: Sections, before: Predictor
) -> ConfigWorkflow:
    """The bundle's training, on these slices and from these weights."""
    file = str(bundle / "configs" / "train.json")
    workflow = ConfigWorkflow(file, logging_file=False, run_id="training")
    config, screened = workflow.parser, read_settings(bundle)
    config.update(
        {
            **{name: screened[name] for name in AS_SCREENED},
            "bundle_root": str(bundle),
            "output_dir": output,
            "train#data": [{"subject": item["subject"]} for item in sections["training"]],
            "train#dataset": Dataset(sections["training"]),
            "validate#dataset": Dataset(sections["validation"]),
            "calibrator#dataset": Dataset(sections["calibration"]),
            "batch_size": min(config["batch_size"], len(sections["training"])),
        }
    )
    for name in ("max_epochs", "learning_rate"):
        if (asked := getattr(settings, name)) is not None:
            config[name] = asked
    if settings.device is not None:
        config["device"] = torch.device(settings.device)
    if settings.pretrained:
        config["ckpt"] = str(before.weights)
        if "warm_up" in config:
            config["warm_up"] = 0  # these weights are past it
    if config["max_epochs"] <= config.get("warm_up", 0):
        raise ConfigError(
            f"new weights take more than {config['warm_up']} epochs, not {config['max_epochs']}"
        )
    return workflow


def _healthy_error(predictor: Predictor, slices: Sequence[Mapping[str, Any]]) -> float:
    """Mean over people of the mean squared error on their slices: of a method that reconstructs to
    the image, of any other to the empty map."""
    images = torch.stack([item["image"] for item in slices])
    target = images if predictor.reconstructs else torch.zeros_like(images)
    errors = (predictor.predict(images).output - target).square().mean(dim=(1, 2, 3)).tolist()
    by_person: dict[str, list[float]] = defaultdict(list)
    for item, error in zip(slices, errors):
        by_person[item["subject"]].append(error)
    return float(np.mean([np.mean(values) for values in by_person.values()]))
