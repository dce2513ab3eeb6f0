"""Which scans a run screens, and which it refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from pathology_screen.cohorts import resolve_dataset
from pathology_screen.errors import ConfigError, InputError, find_refusal
from pathology_screen.io import bids_labels, find_scans, safe_names
from pathology_screen.predictor import Predictor
from pathology_screen.screening.context import ScanContext, prepare
from pathology_screen.transforms import READ_BY_READER


class AcceptedScans(IterableDataset):
    """Take the slice of scan after scan, leave out those that the reader or the acceptance gate
    refuses, and account for all.

    Args:
        data: items with `image` (a path) and `name`; an item may hold what `LoadScand` reads beside
            it.
        predictor: whose preprocessing takes the slices.

    Attributes:
        contexts: name -> what is known of each scan that the last pass has met.
        refused: name -> why, of those that it refused.

    Raises:
        ConfigError: on iteration in a worker process, which could not report its refusals: load
            with num_workers=0.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], predictor: Predictor) -> None:
        super().__init__()
        self.data, self.predictor = data, predictor
        self.contexts: dict[str, ScanContext] = {}
        self.refused: dict[str, InputError] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if get_worker_info() is not None:
            raise ConfigError("scans are screened in one process: set num_workers to 0")
        self.contexts.clear()
        self.refused.clear()
        for item in tqdm(self.data, desc="screening", unit="scan"):
            context = self.contexts[item["name"]] = ScanContext()
            try:
                with context.timed("preparation"):
                    image = prepare(self.predictor, item, context)
            except Exception as error:  # MONAI wraps what a transform raises in a RuntimeError
                refusal = find_refusal(error)
                if refusal is None:
                    raise
                self.refused[item["name"]] = refusal
            else:
                yield {**item, "image": image}


def scans(
    dataset_dir: str | None, datalist: str | None, series_uid: str | None = None
) -> list[dict[str, Any]]:
    """List what is to be screened: the datalist's test section, all scans below a path, or the
    embedded cohort's test scans.

    Args:
        dataset_dir: a NIfTI file, a DICOM folder or zip, or a tree of them; with a datalist, the
            folder its paths start from.
        datalist: Decathlon datalist.
        series_uid: only the series of this SeriesInstanceUID.

    Returns:
        Items with `image` and a unique `name`, the BIDS label that names the results: letters and
        digits of the name in the datalist, or else of the image's path below the folder that all
        images share.

    Raises:
        InputError: if there is no scan.
        ConfigError: if the datalist is faulty, or two names are alike or a name holds no letter or
            digit.
    """
    if dataset_dir and not datalist:
        found = find_scans(str(dataset_dir))
        if series_uid:
            asked = {
                "image": str(dataset_dir),
                "name": "series",
                "series_uid": str(series_uid),
            }  # or its refusal
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
                raise ConfigError(
                    f"the name {item['name']!r} in the datalist holds no letter or digit"
                )
            (label,) = bids_labels([str(item["name"])])
        if label.casefold() in named:
            raise ConfigError(
                f'two scans of the datalist are named "{label}": give each item a "name" of its own'
            )
        needed = {key: item[key] for key in ("image", *READ_BY_READER) if item.get(key) is not None}
        named[label.casefold()] = {**needed, "name": label}
    return list(named.values())
