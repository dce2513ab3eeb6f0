"""Which scans a run screens, which it refuses, and with which calibration."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Compose
from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from pathology_screen.anomaly import Scoring
from pathology_screen.calibration import Calibration
from pathology_screen.cohorts import resolve_dataset
from pathology_screen.engines import calibration_identity
from pathology_screen.errors import ArtifactError, ConfigError, InputError, find_refusal
from pathology_screen.geometry import axial_level, axial_orientation
from pathology_screen.io import bids_labels, find_scans, safe_names
from pathology_screen.screening.preparation import Account, Preparation, Slices
from pathology_screen.transforms import READ_BY_LOADER


class AcceptedScans(IterableDataset):
    """Prepare scan after scan, leave out those that the reader or the acceptance gate refuses, and account for all.

    Args:
        data: items with `image` (a path) and `name`; an item may hold `level` (see `AxialSliced`), `series_uid` and
            `axial_slice`.
        transform: from `eval_transforms`.

    Attributes:
        accounts: name -> what is known of each scan that the last pass has met.
        refused: name -> why, of those that it refused.

    Raises:
        ConfigError: on iteration in a worker process, which could not report its refusals: load with num_workers=0.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose) -> None:
        super().__init__()
        self.data, self.transform, self.prepare = data, transform, Preparation(transform)
        self.accounts: dict[str, Account] = {}
        self.refused: dict[str, InputError] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if get_worker_info() is not None:
            raise ConfigError("scans are screened in one process: set num_workers to 0")
        self.accounts.clear()
        self.refused.clear()
        for item in tqdm(self.data, desc="screening", unit="scan"):
            account = self.accounts[item["name"]] = Account()
            try:
                image = self.take(item, account)
            except Exception as error:  # MONAI wraps what a transform raises in a RuntimeError
                refusal = find_refusal(error)
                if refusal is None:
                    raise
                self.refused[item["name"]] = refusal
            else:
                yield {**item, "image": image}

    def take(self, item: Mapping[str, Any], account: Account) -> MetaTensor:
        """The slice of one item, past the acceptance gate, (1, size, size).

        Raises:
            InputError: (as such, or as the cause of a RuntimeError of MONAI's) if the scan is refused.
        """
        with account.timed("reading"):
            volume = self.transform({**item, "level": "all"}, end=1)["image"]  # the gate judges the whole volume
        with account.timed("preparation"):
            (prepared,) = self.prepare(volume, _slices(item.get("level"), volume), account)
        return prepared["image"]


def _slices(level: str | int | float | None, volume: MetaTensor) -> Slices:
    """The level that an item asks for in the words of `Preparation`, whose "middle" is the level of the transforms."""
    if level is None:
        return "middle"
    if isinstance(level, str):
        axis, _ = axial_orientation(np.asarray(volume.affine))
        return axial_level(volume.shape[1 + axis], level)
    return level


def scans(dataset_dir: str | None, datalist: str | None, series_uid: str | None = None) -> list[dict[str, Any]]:
    """List what is to be screened: the datalist's test section, all scans below a path, or the embedded cohort's
    test scans.

    Args:
        dataset_dir: a NIfTI file, a DICOM folder or zip, or a tree of them; with a datalist, the folder its
            paths start from.
        datalist: Decathlon datalist.
        series_uid: only the series of this SeriesInstanceUID.

    Returns:
        Items with `image` and a unique `name`, the BIDS label that names the results: letters and digits of the name in
        the datalist, or else of the image's path below the folder that all images share.

    Raises:
        InputError: if there is no scan.
        ConfigError: if the datalist is faulty, or two names are alike or a name holds no letter or digit.
    """
    if dataset_dir and not datalist:
        found = find_scans(str(dataset_dir))
        if series_uid:
            asked = {"image": str(dataset_dir), "name": "series", "series_uid": str(series_uid)}  # or its refusal
            found = [item for item in found if item.get("series_uid") == str(series_uid)] or [asked]
        labels = bids_labels([item["name"] for item in found])
        return [{**item, "name": label} for item, label in zip(found, labels)]
    items = resolve_dataset(dataset_dir, datalist, section="test")
    if not items:
        raise InputError("empty", 'section "test" of the datalist')
    return _named(items)


def _named(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keep what reading needs of each item, and give it a label that is unique."""
    images = [Path(item["image"]).absolute() for item in items]
    shared = os.path.commonpath([image.parent for image in images])
    labels = bids_labels(safe_names([image.relative_to(shared).as_posix() for image in images]))
    named: dict[str, dict[str, Any]] = {}
    for item, label in zip(items, labels):
        if "name" in item:
            if not re.search("[A-Za-z0-9]", str(item["name"])):
                raise ConfigError(f"the name {item['name']!r} in the datalist holds no letter or digit")
            (label,) = bids_labels([str(item["name"])])
        if label.casefold() in named:
            raise ConfigError(f'two scans of the datalist are named "{label}": give each item a "name" of its own')
        needed = {key: item[key] for key in ("image", *READ_BY_LOADER) if item.get(key) is not None}
        named[label.casefold()] = {**needed, "name": label}
    return list(named.values())


def calibration_beside(
    weights: str | Path,
    preprocessing_options: Mapping[str, Any],
    anomaly_map: Scoring,
    file: str | Path | None = None,
    inferer: Inferer | None = None,
) -> Calibration:
    """Load `calibration.json` beside the weights, or another file, whatever level it was fitted at (`Judge.covers`
    tells).

    Raises:
        ArtifactError: if it is missing, or belongs to other weights, preprocessing, scoring or inferer.
    """
    path = Path(weights).with_name("calibration.json") if file is None else Path(file)
    if not path.is_file():
        raise ArtifactError(
            f"{path.name} is missing{' beside the weights' if file is None else ''}: scores mean nothing without it; "
            "run `calibrating` of train.json with the run's folder as output_dir"
        )
    calibration = Calibration.load(path)
    level = calibration.identity.get("level", "all")
    calibration.check_identity(calibration_identity(weights, preprocessing_options, anomaly_map, level, inferer))
    return calibration
