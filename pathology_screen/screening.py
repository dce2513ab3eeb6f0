"""Which scans a run screens, which it refuses, and with which calibration."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from pathology_screen.anomaly import Scoring
from pathology_screen.calibration import Calibration
from pathology_screen.cohorts import resolve_dataset
from pathology_screen.engines import calibration_identity
from pathology_screen.errors import ArtifactError, ConfigError, InputError, find_refusal
from pathology_screen.io import find_scans, safe_names
from pathology_screen.transforms import READ_BY_LOADER


@dataclass(frozen=True)
class Refusal:
    """A scan that was not scored, and why; `code` is a key of `errors.REFUSALS`."""

    name: str
    code: str
    reason: str


class AcceptedScans(IterableDataset):
    """Prepare scan after scan, leave out those that are refused, and keep account of them.

    Args:
        data: items with `image` (a path) and `name`.
        transform: item -> item on the network grid.

    Attributes:
        refused: the refusals of the last pass.

    Raises:
        ConfigError: on iteration in a worker process, which could not report its refusals: load with num_workers=0.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable) -> None:
        super().__init__()
        self.data, self.transform = data, transform
        self.refused: list[Refusal] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if get_worker_info() is not None:
            raise ConfigError("scans are screened in one process: set num_workers to 0")
        self.refused.clear()
        for item in tqdm(self.data, desc="screening", unit="scan"):
            try:
                prepared = self.transform(item)
            except Exception as error:
                refusal = find_refusal(error)
                if refusal is None:
                    raise
                self.refused.append(Refusal(item["name"], refusal.code, str(refusal)))
            else:
                yield prepared


def scans(dataset_dir: str | None, datalist: str | None, series_uid: str | None = None) -> list[dict[str, Any]]:
    """List what is to be screened: the datalist's test section, all scans below a path, or the embedded cohort's
    test scans.

    Args:
        dataset_dir: a NIfTI file, a DICOM folder or zip, or a tree of them; with a datalist, the folder its
            paths start from.
        datalist: Decathlon datalist.
        series_uid: SeriesInstanceUID to read where a folder holds several series.

    Returns:
        Items with `image` and a unique `name`, which names the files of the results: that of the datalist, or else the
        image's path below the folder that all images share, without its suffix.

    Raises:
        InputError: if there is no scan.
        ConfigError: if the datalist is faulty, or two names are alike or a name cannot be that of a file.
    """
    if dataset_dir and not datalist:
        chosen = {"series_uid": str(series_uid)} if series_uid else {}
        return [item | chosen for item in find_scans(str(dataset_dir))]
    items = resolve_dataset(dataset_dir, datalist, section="test")
    if not items:
        raise InputError("empty", 'section "test" of the datalist')
    return _named(items)


def _named(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keep what reading needs of each item, and give it a name that can be that of a file and is unique."""
    images = [Path(item["image"]).absolute() for item in items]
    shared = os.path.commonpath([image.parent for image in images])
    names = safe_names([image.relative_to(shared).as_posix() for image in images])
    named: dict[str, dict[str, Any]] = {}
    for item, name in zip(items, names):
        name = str(item.get("name", name))
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
            raise ConfigError(f'"{name}" cannot name files: use letters, digits, ".", "-" and "_" alone')
        if name.casefold() in named:
            raise ConfigError(f'two scans of the datalist are named "{name}": give each item a "name" of its own')
        needed = {key: item[key] for key in ("image", *READ_BY_LOADER) if item.get(key) is not None}
        named[name.casefold()] = {**needed, "name": name}
    return list(named.values())


def calibration_beside(
    weights: str | Path, preprocessing_options: Mapping[str, Any], anomaly_map: Scoring
) -> Calibration:
    """Load `calibration.json` beside the weights, whatever level it was fitted at (`comparable` tells).

    Raises:
        ArtifactError: if it is missing, or belongs to other weights, preprocessing or scoring.
    """
    path = Path(weights).with_name("calibration.json")
    if not path.is_file():
        raise ArtifactError(
            f"{path.name} is missing beside the weights: scores mean nothing without it; "
            "run `calibrating` of train.json with the run's folder as output_dir"
        )
    calibration = Calibration.load(path)
    level = calibration.identity.get("level", "all")
    calibration.check_identity(calibration_identity(weights, preprocessing_options, anomaly_map, level))
    return calibration


def comparable(calibration: Calibration, level: str | int | float) -> bool:
    """Tell whether a slice taken at `level` may be compared with the healthy slices of a calibration."""
    return calibration.identity["level"] in ("all", level)
