"""Screen many scans: list, share out, go on after an interruption, account for every one."""

import hashlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from monai.transforms import Compose
from torch import distributed as dist
from tqdm import tqdm

from pathology_screen import __version__
from pathology_screen.cohorts import resolve_dataset
from pathology_screen.errors import (
    NOT_ASSESSABLE,
    ConfigError,
    InputError,
    RunError,
    as_refusal,
    fault,
)
from pathology_screen.files import replacing, text_sha256
from pathology_screen.io import Discovery, FoundScan, bids_labels, discover, safe_names, source_id
from pathology_screen.outputs.results import finished, free_name, write_result
from pathology_screen.outputs.run_folder import Manifest, locked
from pathology_screen.outputs.worklist import as_text, save_overview, summary, worklist_rows
from pathology_screen.result import ScanContext, ScreeningResult
from pathology_screen.screening.inspection import Inspector
from pathology_screen.screening.judge import Judge
from pathology_screen.screening.screener import ScanOptions, Screener
from pathology_screen.transforms import READ_BY_READER

LONGEST_WAIT = timedelta(days=30)
"""For the slowest process, at the end of a run of several."""


@dataclass(frozen=True)
class Item:
    """One scan to be screened: its name in the results (letters and digits, or the entities of a
    BIDS image; unique), where it is, and what its datalist says of how to read it."""

    name: str
    scan: FoundScan
    options: ScanOptions = field(default_factory=ScanOptions)

    @property
    def path(self) -> Path:
        """The file or archive, or the folder of the series."""
        return self.scan.place

    @property
    def series_uid(self) -> str | None:
        return self.scan.series_uid


def list_items(
    root: str | Path | Discovery | None = None,
    datalist: str | Path | None = None,
    *,
    names: str = "pseudonyms",
    series_uid: str | None = None,
) -> list[Item]:
    """List the scans (every DICOM series) at or below a path, or the test of a datalist.

    Args:
        root: see `io.discover`, or what that found; with a datalist, the folder its paths start
            from; with neither, the embedded cohort is listed.
        datalist: Decathlon datalist; an item may hold its own `name`.
        names: "pseudonyms", a "p" and twelve digits of `source_id`, which tell nothing of the
            patient; "paths", letters and digits of the path below `root` (of a datalist, below the
            folder that all images share).
        series_uid: list only this series.

    Raises:
        InputError: if there is no scan.
        ConfigError: if the datalist is faulty, or names are alike or without letters.
    """
    if names not in ("pseudonyms", "paths"):
        raise ConfigError(f'names are "pseudonyms" or "paths", not {names!r}')
    if datalist or not root:
        return _items_of_datalist(root, datalist, names)
    found = root if isinstance(root, Discovery) else discover(root)
    if not found.scans:
        raise InputError("empty")
    labels = bids_labels(found.names) if names == "paths" else _pseudonyms(found.scans)
    items = [Item(label, scan) for label, scan in zip(labels, found.scans)]
    if not series_uid:
        return items
    absent = FoundScan(found.root, (found.root,), series_uid, _digest([series_uid]))
    chosen = [item for item in items if item.series_uid == series_uid]
    return chosen or [Item(_pseudonyms([absent])[0], absent)]  # reading will refuse it


def _pseudonyms(scans: Sequence[FoundScan]) -> list[str]:
    return bids_labels([f"p{scan.source_id[:12]}" for scan in scans])


def _items_of_datalist(root: Any, datalist: str | Path | None, names: str) -> list[Item]:
    listed = resolve_dataset(root, datalist, section="test")
    if not listed:
        raise InputError("empty", 'section "test" of the datalist')
    images = [Path(item["image"]).absolute() for item in listed]
    scans = [
        FoundScan(image, (image,), item.get("series_uid"), source_id(image))
        for image, item in zip(images, listed)
    ]
    shared = os.path.commonpath([image.parent for image in images])
    below = safe_names([image.relative_to(shared).as_posix() for image in images])
    labels = bids_labels(below) if names == "paths" else _pseudonyms(scans)
    items: dict[str, Item] = {}
    for label, scan, item in zip(labels, scans, listed):
        if "name" in item:
            if not re.search("[A-Za-z0-9]", str(item["name"])):
                raise ConfigError(
                    f"the name {item['name']!r} in the datalist holds no letter or digit"
                )
            (label,) = bids_labels([str(item["name"])])
        if label.casefold() in items:
            raise ConfigError(
                f'two scans of the datalist are named "{label}": give each item a "name" of its own'
            )
        options: Any = {key: item[key] for key in READ_BY_READER if item.get(key) is not None}
        options.pop("series_uid", None)
        items[label.casefold()] = Item(label, scan, options)
    return list(items.values())


def save_key(items: Sequence[Item], others: Sequence[Path], path: Path) -> None:
    """Write which name is which scan, and what files were passed over, as CSV that only its owner
    may read; paths in the bytes of the file system, whatever encoding that is."""
    with replacing(path) as temporary:
        temporary.chmod(0o600)
        rows = [(item.name, as_text(str(item.path)), item.series_uid) for item in items]
        rows += [("", as_text(str(other)), None) for other in others]
        table = pd.DataFrame(rows, columns=["name", "path", "series_uid"])
        table.to_csv(temporary, index=False, errors="surrogateescape")


@dataclass
class Batch:
    """A run over scans, which writes their results, tables and a page of all, and a manifest.

    Scans whose results are there already, of the same content and settings, are not screened again;
    the tables also list what other inputs left in the folder. Started by `torchrun`, every
    process takes its share. After the run, `records` holds those of the scans.

    Args:
        found: what a search found, of which the items are all or some.
        key: CSV to write, see `save_key`.
        plane_mm, axial_slice: see `ScanOptions`.
        report, dicom: whether to write HTML reports, and DICOM objects for scans that are DICOM.
        exclusive: whether no other run may write into the folder meanwhile.

    Raises:
        ConfigError: in the environment of several processes where `torchrun` did not make it.
    """

    judge: Judge
    items: Sequence[Item]
    folder: Path
    found: Discovery | None = None
    key: Path | None = None
    plane_mm: float | None = None
    axial_slice: bool = False
    report: bool = True
    dicom: bool = False
    exclusive: bool = True
    records: list[dict[str, Any]] = field(default_factory=list, init=False)
    runs: dict[str, str] = field(default_factory=dict, init=False)
    rank: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        check_processes()
        self.folder = Path(self.folder)
        judged = ("method", "calibration_id", "identity")
        own = ("plane_mm", "axial_slice", "report", "dicom")
        self.settings: dict[str, Any] = {
            **{name: self.judge.provenance[name] for name in judged},
            "rate": self.judge.rate,
            **{name: getattr(self, name) for name in own},
            "software": __version__,
        }

    @property
    def others(self) -> list[Path]:
        """Files that were found and belong to none of the items."""
        if self.found is None:
            return []
        chosen = {item.scan for item in self.items}
        left = (scan for scan in self.found.scans if scan not in chosen)
        return [*self.found.passed_over, *(file for scan in left for file in scan.files)]

    def options(self, item: Item) -> ScanOptions:
        """How to read a scan, and which plane to take."""
        own: Any = {"plane_mm": self.plane_mm, "axial_slice": self.axial_slice, **item.options}
        return {**own, "series_uid": item.series_uid}

    def rehearse(self) -> int:
        """Print of every scan whether it is done already, would be screened, or would be refused,
        and what is passed over; write nothing.

        Each scan that is not done is read and its headers are judged; what the later steps might
        refuse (brain extraction, registration, the network) is not foreseen. The exit status is
        that which the run would have as far as this tells. RunError as of `screen`.
        """
        self._manifest()
        predictor = self.judge.predictor
        reading = Compose(predictor.preprocessing.transforms[:1])
        inspect = Inspector(reading, predictor.slice_options["domain"])
        status, counts = 0, dict.fromkeys(("to screen", "done already", "would be refused"), 0)
        for item in self._named():
            if record := finished(self.folder, item.name, self._run_id(item)):
                state, code, why = "done already", record["code"], record["outcome"]
            elif why := inspect(item.scan.source, **self.options(item)).refusal:
                state, code = "would be refused", why.code
            else:
                state, code = "to screen", None
            counts[state] += 1
            status = NOT_ASSESSABLE if code else status
            print(f"{item.name}: {state}: {why}" if why else f"{item.name}: {state}", flush=True)
        told = ", ".join(f"{number} {state}" for state, number in counts.items())
        print(f"{told}, {len(self.others)} files or links passed over; nothing was written")
        return status

    def screen(self, screener: Screener) -> list[dict[str, Any]]:
        """Screen the scans; a fault of the software in the face of one makes that not assessable.
        Returns one row of the worklist for every item.

        Raises:
            RunError: if another run writes into the folder, it holds results of other settings, or
                a result is gone at the end.
            ScreeningError: if the weights turn out to be broken, or a setting makes no sense.
            OSError: if the folder cannot be written.
        """
        with self.pending() as items:
            for item in items:
                self.write(item, self._screened(screener, item))  # and let go of its volumes
        return worklist_rows(self.records)

    def _screened(self, screener: Screener, item: Item) -> ScreeningResult:
        try:
            return screener(item.scan.source, **self.options(item))
        except Exception as error:
            return self.judge.refuse(as_refusal(error))

    @contextmanager
    def pending(self) -> Iterator[Iterator[Item]]:
        """Keep the folder for this run, give the scans of this process that are to be screened, and
        account for all at the end, also after an error."""
        with (
            _process_group() as (self.rank, size),
            locked(self.folder) if self.rank == 0 and self.exclusive else nullcontext(),
        ):
            items, account = list(self.items), None
            if self.rank == 0:
                items = self._named()
                account = self._accounting(items)
                if self.key is not None:
                    save_key(items, self.others, self.key)
            shared = [items]
            if size > 1:
                dist.broadcast_object_list(shared)
            (items,) = shared
            self.runs = {item.name: self._run_id(item) for item in items}
            shown = {"desc": "screening", "unit": "scan", "disable": self.rank > 0}
            try:
                with tqdm(items[self.rank :: size], **shown) as own:
                    yield (item for item in own if self._record(item.name) is None)
                if size > 1:
                    dist.barrier()
            finally:
                records = map(self._record, self.runs)
                self.records = [record for record in records if record is not None]
                if account is not None:
                    account(self.records)
            if size > 1:
                dist.barrier()
        if gone := len(items) - len(self.records):
            raise RunError(
                f"{gone} of {len(items)} results are gone, for the folder was changed meanwhile: "
                "start again"
            )

    def write(self, item: Item, result: ScreeningResult) -> None:
        """Write the result of a scan; one that cannot be written whole is none."""
        options: dict[str, Any] = {"report": self.report, "run": self.runs[item.name]}
        options["source_id"] = item.scan.source_id
        is_dicom = self.dicom and result.source.get("format") == "dicom"
        source: Any = {"dicom_source": item.scan.source, "series_uid": item.series_uid}
        try:
            write_result(result, item.name, self.folder, **options, **(source if is_dicom else {}))
        except (OSError, RunError):
            raise
        except Exception as error:
            context = ScanContext(result.source, list(result.findings))
            refused = self.judge.refuse(fault(error), context)
            write_result(refused, item.name, self.folder, **options)

    def summarize(self) -> int:
        """Print what came out, and on standard error why scans were not assessable; return the exit
        status: `NOT_ASSESSABLE` where a scan was not, else 0."""
        rows, others = worklist_rows(self.records), self.others
        refused = [row for row in rows if row["outcome"] == "not_assessable"]
        if self.rank == 0:
            print(summary(rows))
            if others:
                print(
                    f"passed over: {len(others)} files or links that belong to none of these "
                    "scans (--key lists them)"
                )
            print(f"look at: {self.folder / 'index.html'}")
            for row in refused:
                print(f"not assessable: {row['name']}: {row['reason']}", file=sys.stderr)
        return NOT_ASSESSABLE if refused else 0

    def _named(self) -> list[Item]:
        """The items, by the names of their results in the folder."""
        return [
            replace(item, name=free_name(self.folder, item.name, item.scan.source_id))
            for item in self.items
        ]

    def _record(self, name: str) -> dict[str, Any] | None:
        return finished(self.folder, name, self.runs[name])

    def _run_id(self, item: Item) -> str:
        """Changes with the settings, and where a file of the scan does: its name, size or time."""
        try:
            stats = [(file.name, file.stat()) for file in item.scan.files]
            files = _digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        except OSError:  # it vanished, or one may not look: the next run shall try again
            files = secrets.token_hex()
        scan = [item.name, item.scan.source_id, files, dict(item.options)]
        return _digest([self.settings, *scan])

    def _manifest(self) -> Manifest:
        return Manifest(self.folder, self.settings, self.judge.provenance["versions"])

    def _accounting(self, items: Sequence[Item]) -> Callable[[Sequence[Mapping[str, Any]]], None]:
        """Note the run in the manifest; give what accounts for the scans that have a record, there
        and in the tables and their page, which also show those of other inputs."""
        manifest, passed_over = self._manifest(), len(self.others)
        names, places = [item.name for item in items], [item.path.absolute() for item in items]
        root = self.found.root if self.found else os.path.commonpath(places)
        input_id = hashlib.sha256(os.fsencode(Path(root).resolve())).hexdigest()[:16]
        entry: dict[str, Any] = {
            "found": len(names) + passed_over,
            "screened": 0,
            "refused": 0,
            "passed_over": passed_over,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "names": names,
        }
        manifest.note(input_id, entry)
        since, own = time.perf_counter(), set(names)

        def account(records: Sequence[Mapping[str, Any]]) -> None:
            refused = sum(record["outcome"] == "not_assessable" for record in records)
            seconds = round(time.perf_counter() - since, 1)
            done = {"screened": len(records) - refused, "refused": refused, "seconds": seconds}
            manifest.note(input_id, entry | done)
            earlier = (finished(self.folder, name) for name in manifest.names if name not in own)
            listed = [*records, *(record for record in earlier if record is not None)]
            content = manifest.content  # the first input stays, whatever is screened beside it
            identity = _digest([content["settings"], next(iter(content["inputs"]))])
            save_overview(listed, self.folder, identity[:16])

        return account


def _digest(value: Any) -> str:
    return text_sha256(json.dumps(value, sort_keys=True))


def check_processes() -> None:
    """Raise ConfigError in the environment of several processes that `torchrun` did not make."""
    if os.environ.get("WORLD_SIZE", "1") != "1" and not dist.is_torchelastic_launched():
        raise ConfigError(
            "WORLD_SIZE is set, but torchrun did not start this process: unset it, or use torchrun"
        )


@contextmanager
def _process_group() -> Iterator[tuple[int, int]]:
    """The rank of this process, and the number of those that `torchrun` started."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield 0, 1
        return
    dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()
