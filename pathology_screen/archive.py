"""Screen many scans: list them, share them out, go on after an interruption, account for every one."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import distributed as dist
from tqdm import tqdm

from pathology_screen import __version__
from pathology_screen.errors import InputError, ScreeningError, fault
from pathology_screen.files import replacing
from pathology_screen.io import bids_labels, find_scans, list_series
from pathology_screen.outputs.index_page import save_index
from pathology_screen.outputs.results import finished, write_dataset_description, write_result
from pathology_screen.outputs.worklist import save_worklist, worklist_rows
from pathology_screen.screening import Screener, ScreeningResult
from pathology_screen.screening.context import ScanContext

LONGEST_WAIT = timedelta(days=30)
"""For the slowest process, at the end of a run of several."""


@dataclass(frozen=True)
class Item:
    """One scan to be screened.

    Attributes:
        name: in the results: letters and digits, unique.
        path: of the file, folder or archive.
        series_uid: of the DICOM series in it, where it holds several.
    """

    name: str
    path: Path
    series_uid: str | None = None


def list_items(root: str | Path, *, names: str = "pseudonyms", series_uid: str | None = None) -> list[Item]:
    """List the scans at or below a path; every DICOM series of a folder or archive is one.

    Args:
        root: see `io.find_scans`.
        names: "pseudonyms", twelve digits of a hash of the path below `root` and the series, which tell nothing of the
            patient; "paths", letters and digits of that path.
        series_uid: only this series of each folder or archive.

    Raises:
        InputError: if there is no scan.
    """
    found = [
        Item(item["name"], Path(item["image"]), uid)
        for item in find_scans(root)
        for uid in ([series_uid] if series_uid else _series(Path(item["image"])))
    ]
    named = bids_labels([_pseudonym(item) if names == "pseudonyms" else _name_in_words(item) for item in found])
    return [replace(item, name=name) for item, name in zip(found, named)]


def save_key(items: Sequence[Item], others: Sequence[Path], path: Path) -> None:
    """Write which name is which scan, as CSV that only its owner may read; it holds paths, and so perhaps patients.

    Args:
        items: from `list_items`.
        others: from `io.passed_over`; they have no name.
        path: of the CSV.
    """
    with replacing(path) as temporary:
        temporary.chmod(0o600)
        rows = [(item.name, str(item.path), item.series_uid) for item in items]
        rows += [("", str(other), None) for other in others]
        pd.DataFrame(rows, columns=["name", "path", "series_uid"]).to_csv(temporary, index=False)


def screen_archive(
    screener: Screener,
    items: Sequence[Item],
    folder: Path,
    *,
    plane_mm: float | None = None,
    axial_slice: bool = False,
    report: bool = True,
    dicom: bool = False,
) -> list[dict[str, Any]]:
    """Screen scans and write their results, a worklist and an index page.

    Scans whose results are there already, of the same input and settings, are not screened again. Started by
    `torchrun`, every process takes its share; the first writes the worklist when all are done.

    Args:
        screener: with its weights.
        items: from `list_items`; the same in every process.
        folder: of the results.
        plane_mm, axial_slice: see `Screener`.
        report: whether to write HTML reports.
        dicom: whether to write DICOM objects for the scans that are DICOM.

    Returns:
        The rows of the worklist, of the scans that are done.

    Raises:
        ScreeningError: if the weights turn out to be broken, or a setting makes no sense: no scan can be screened.
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        **screener.judge.provenance,
        "rate": screener.judge.rate,
        "plane_mm": plane_mm,
        "axial_slice": axial_slice,
        "report": report,
        "dicom": dicom,
        "software": __version__,
    }
    runs = {item.name: _digest([settings, item.name, _fingerprint(item.path)]) for item in items}
    with _processes() as (rank, world_size):
        try:
            for item in tqdm(items[rank::world_size], desc="screening", unit="scan", disable=rank > 0):
                if finished(folder, item.name, runs[item.name]) is None:
                    result = screen_item(screener, item, plane_mm, axial_slice)
                    write = partial(write_result, name=item.name, folder=folder, report=report, run=runs[item.name])
                    source = item.path if dicom and result.source.get("format") == "dicom" else None
                    try:
                        write(result, dicom_source=source, series_uid=item.series_uid)
                    except OSError:
                        raise
                    except Exception as error:  # a result that cannot be written whole is none
                        write(screener.judge.refuse(fault(error), ScanContext(result.source, list(result.findings))))
            _wait(world_size)
        finally:
            found = [finished(folder, name, run) for name, run in runs.items()]
            records = [record for record in found if record is not None]
            rows = worklist_rows(records)
            if rank == 0:
                write_dataset_description(folder)
                save_worklist(rows, folder / "worklist.csv")
                save_index(rows, folder / "index.html")
        _wait(world_size)
    return rows


def screen_item(
    screener: Screener, item: Item, plane_mm: float | None = None, axial_slice: bool = False
) -> ScreeningResult:
    """Screen one scan; a fault of the software in the face of it is a scan that is not assessable, not the end."""
    try:
        return screener(item.path, plane_mm=plane_mm, series_uid=item.series_uid, axial_slice=axial_slice)
    except ScreeningError:
        raise
    except Exception as error:
        return screener.judge.refuse(fault(error))


def _series(path: Path) -> list[str | None]:
    """The series at a path; one None where there is but one, or where reading it will say what is wrong."""
    try:
        found = list_series(path)
    except InputError:
        return [None]
    return list(found) if len(found) > 1 else [None]


def _pseudonym(item: Item) -> str:
    return _digest([item.name, item.series_uid])[:12]


def _name_in_words(item: Item) -> str:
    return item.name + (_digest([item.series_uid])[:6] if item.series_uid else "")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _fingerprint(path: Path) -> str:
    """Changes where a file of the scan does: a hash of their names, sizes and times of change."""
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        stats = [(file.name, file.stat()) for file in files if file.exists()]
    except OSError:  # one may not look: the next run shall try again
        return secrets.token_hex()
    return _digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


@contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """Rank and number of the processes that `torchrun` started; (0, 1) without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def _wait(world_size: int) -> None:
    if world_size > 1:
        dist.barrier()
