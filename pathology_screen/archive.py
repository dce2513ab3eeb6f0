"""Screen many scans: list them, share them out, go on after an interruption, account for every
one."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import distributed as dist
from tqdm import tqdm

from pathology_screen import __version__
from pathology_screen.errors import ConfigError, InputError, RunError, ScreeningError, fault
from pathology_screen.files import replacing
from pathology_screen.io import Discovery, FoundScan, bids_labels, discover
from pathology_screen.outputs.results import finished, free_name, write_result
from pathology_screen.outputs.run_folder import Manifest, locked
from pathology_screen.outputs.worklist import as_text, save_overview, worklist_rows
from pathology_screen.screening import Screener, ScreeningResult
from pathology_screen.screening.context import ScanContext

LONGEST_WAIT = timedelta(days=30)
"""For the slowest process, at the end of a run of several."""


@dataclass(frozen=True)
class Item:
    """One scan to be screened.

    Attributes:
        name: in the results: letters and digits, unique.
        scan: where it is.
    """

    name: str
    scan: FoundScan

    @property
    def path(self) -> Path:
        """Of the file or archive, or of the folder of the series."""
        return self.scan.place

    @property
    def series_uid(self) -> str | None:
        return self.scan.series_uid


def list_items(
    root: str | Path | Discovery, *, names: str = "pseudonyms", series_uid: str | None = None
) -> list[Item]:
    """List the scans at or below a path; every DICOM series is one.

    Args:
        root: see `io.discover`; or what that found.
        names: "pseudonyms", a "p" and twelve digits of `source_id`, which tell nothing of the
            patient; "paths", letters and digits of the path below `root`.
        series_uid: only this series.

    Raises:
        InputError: if there is no scan.
    """
    found = root if isinstance(root, Discovery) else discover(root)
    if not found.scans:
        raise InputError("empty")
    if names == "pseudonyms":
        labels = bids_labels([f"p{scan.source_id[:12]}" for scan in found.scans])
    else:
        labels = bids_labels(found.names)
    items = [Item(label, scan) for label, scan in zip(labels, found.scans)]
    if series_uid is None:
        return items
    chosen = [item for item in items if item.series_uid == series_uid]
    absent = FoundScan(
        found.root, (found.root,), series_uid, _digest([series_uid])
    )  # reading will refuse it
    return chosen or [Item(f"p{absent.source_id[:12]}", absent)]


def save_key(items: Sequence[Item], others: Sequence[Path], path: Path) -> None:
    """Write which name is which scan, as CSV that only its owner may read; it holds paths, and so
    perhaps patients.

    Paths are written in the bytes of the file system, whatever encoding that is.

    Args:
        items: from `list_items`.
        others: what was passed over; it has no name.
        path: of the CSV.
    """
    with replacing(path) as temporary:
        temporary.chmod(0o600)
        rows = [(item.name, as_text(str(item.path)), item.series_uid) for item in items]
        rows += [("", as_text(str(other)), None) for other in others]
        table = pd.DataFrame(rows, columns=["name", "path", "series_uid"])
        table.to_csv(temporary, index=False, errors="surrogateescape")


def screen_archive(
    screener: Screener,
    items: Sequence[Item],
    folder: Path,
    *,
    root: Path | None = None,
    others: Sequence[Path] = (),
    key: Path | None = None,
    plane_mm: float | None = None,
    axial_slice: bool = False,
    report: bool = True,
    dicom: bool = False,
) -> list[dict[str, Any]]:
    """Screen scans and write their results, a worklist, an index page and a manifest.

    Scans whose results are there already, of the same content and settings, are not screened again;
    the worklist also lists what other inputs left in the folder. Started by `torchrun`, every
    process takes its share.

    Args:
        screener: with its weights.
        items: from `list_items`.
        folder: of the results.
        root: that the items were found below (default: the folder that all of them share).
        others: what was passed over there.
        key: CSV to write, see `save_key`.
        plane_mm, axial_slice: see `Screener`.
        report: whether to write HTML reports.
        dicom: whether to write DICOM objects for the scans that are DICOM.

    Returns:
        One row of the worklist for every item.

    Raises:
        RunError: if another run writes into the folder, it holds results of other settings, or a
            result is gone at the end.
        ScreeningError: if the weights turn out to be broken, or a setting makes no sense: no scan
            can be screened.
        OSError: if the folder cannot be written.
    """
    settings = {
        **{
            name: value
            for name, value in screener.judge.provenance.items()
            if name not in ("healthy", "versions")
        },
        "rate": screener.judge.rate,
        "plane_mm": plane_mm,
        "axial_slice": axial_slice,
        "report": report,
        "dicom": dicom,
        "software": __version__,
    }
    with _processes() as processes, locked(folder) if processes.is_first else nullcontext():
        account = None
        if processes.is_first:
            named = (free_name(folder, item.name, item.scan.source_id) for item in items)
            items = [replace(item, name=name) for item, name in zip(items, named)]
            manifest = Manifest(folder, settings, screener.judge.provenance["versions"])
            account = _Account(
                folder, manifest, _input_id(root, items), [item.name for item in items], len(others)
            )
            if key is not None:
                save_key(items, others, key)
        items = processes.shared(items)
        runs = {
            item.name: _digest([settings, item.name, item.scan.source_id, _fingerprint(item)])
            for item in items
        }
        try:
            for item in tqdm(
                items[processes.own], desc="screening", unit="scan", disable=not processes.is_first
            ):
                if finished(folder, item.name, runs[item.name]) is None:
                    result = screen_item(screener, item, plane_mm, axial_slice)
                    _write(
                        result,
                        item,
                        folder,
                        screener,
                        run=runs[item.name],
                        report=report,
                        dicom=dicom,
                    )
            processes.wait()
        finally:
            records = [
                record
                for name, run in runs.items()
                if (record := finished(folder, name, run)) is not None
            ]
            if account is not None:
                account.write(records)
        processes.wait()
    if len(records) < len(items):
        gone = len(items) - len(records)
        raise RunError(
            f"{gone} of {len(items)} results are gone, for the folder was changed meanwhile: start again"
        )
    return worklist_rows(records)


def screen_item(
    screener: Screener, item: Item, plane_mm: float | None = None, axial_slice: bool = False
) -> ScreeningResult:
    """Screen one scan; a fault of the software in the face of it is a scan that is not assessable,
    not the end."""
    try:
        return screener(
            item.scan.source, plane_mm=plane_mm, series_uid=item.series_uid, axial_slice=axial_slice
        )
    except ScreeningError:
        raise
    except Exception as error:
        return screener.judge.refuse(fault(error))


def check_processes() -> None:
    """Refuse the environment of several processes where `torchrun` did not make it: each would wait
    for the others.

    Raises:
        ConfigError: then.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1" and not dist.is_torchelastic_launched():
        raise ConfigError(
            "WORLD_SIZE is set, but torchrun did not start this process: unset it, or use torchrun"
        )


def is_first_process() -> bool:
    """Whether this process is the one of several that prints."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0"


def _write(
    result: ScreeningResult,
    item: Item,
    folder: Path,
    screener: Screener,
    *,
    run: str,
    report: bool,
    dicom: bool,
) -> None:
    write = partial(
        write_result,
        name=item.name,
        folder=folder,
        report=report,
        run=run,
        source_id=item.scan.source_id,
    )
    source = item.scan.source if dicom and result.source.get("format") == "dicom" else None
    try:
        write(result, dicom_source=source, series_uid=item.series_uid)
    except (OSError, RunError):
        raise
    except Exception as error:  # a result that cannot be written whole is none
        write(
            screener.judge.refuse(fault(error), ScanContext(result.source, list(result.findings)))
        )


class _Account:
    """What a run has to answer for: the worklist, the index page, and its entry in the manifest.

    Args:
        folder: of the results.
        manifest: of it.
        input_id: key of the entry.
        names: of the scans that were found.
        others: number of files that were passed over.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, input_id: str, names: Sequence[str], others: int
    ) -> None:
        self.folder, self.manifest, self.input_id, self.names, self.others = (
            folder,
            manifest,
            input_id,
            names,
            others,
        )
        self.started, self.since = (
            datetime.now(UTC).isoformat(timespec="seconds"),
            time.perf_counter(),
        )
        manifest.note(input_id, self._entry([]))

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Account for the scans that have a record; the worklist adds those of other inputs."""
        self.manifest.note(self.input_id, self._entry(records))
        earlier = (
            finished(self.folder, name)
            for name in self.manifest.names
            if name not in set(self.names)
        )
        rows = worklist_rows([*records, *(record for record in earlier if record is not None)])
        save_overview(rows, self.folder)

    def _entry(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        refused = sum(record["outcome"] == "not_assessable" for record in records)
        return {
            "found": len(self.names) + self.others,
            "screened": len(records) - refused,
            "refused": refused,
            "passed_over": self.others,
            "started": self.started,
            "seconds": round(time.perf_counter() - self.since, 1),
            "names": list(self.names),
        }


def _input_id(root: Path | None, items: Sequence[Item]) -> str:
    """Tells what a run was started on, and not its path."""
    path = root or Path(os.path.commonpath([item.path.absolute() for item in items]))
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _fingerprint(item: Item) -> str:
    """Changes where a file of the scan does: a hash of their names, sizes and times of change."""
    try:
        stats = [(file.name, file.stat()) for file in item.scan.files]
    except OSError:  # it vanished, or one may not look: the next run shall try again
        return secrets.token_hex()
    return _digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


@dataclass(frozen=True)
class _Processes:
    """Those that `torchrun` started; one without it."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def own(self) -> slice:
        """The share of this process."""
        return slice(self.rank, None, self.size)

    def shared(self, items: Sequence[Item]) -> list[Item]:
        """The items of the first process."""
        if self.size == 1:
            return list(items)
        received = [list(items)]
        dist.broadcast_object_list(received)
        return received[0]

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def _processes() -> Iterator[_Processes]:
    check_processes()
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield _Processes()
        return
    dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        yield _Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
