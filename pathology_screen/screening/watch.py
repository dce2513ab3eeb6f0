"""Screen what arrives in a folder, once each, and send the results to an archive."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pathology_screen.errors import ConfigError, RunError
from pathology_screen.files import write_text
from pathology_screen.io import FoundScan, discover
from pathology_screen.outputs.results import all_finished, place_of, stem_of
from pathology_screen.outputs.stow import check_url, store
from pathology_screen.screening.batch import Batch, list_items
from pathology_screen.screening.screener import Screener

PAUSE = 5.0
"""Seconds between two looks at the folder."""


def watch(
    screener: Screener,
    folder: Path,
    output: Path,
    *,
    dicomweb: str | None = None,
    settle: float = 30.0,
    once: bool = False,
) -> None:
    """Screen every scan of a folder once none of its files has changed for `settle` seconds, into
    `output`; send the DICOM objects of those that were assessed to the archive at `dicomweb`.

    What was done is kept in the folder of the results alone: after a restart, scans without a
    result are screened, and results that the archive did not acknowledge are sent. It goes on until
    it is ended, or with `once` looks once, and raises RunError if something could not be sent.
    ConfigError if the address is none, or `settle` is negative.
    """
    if dicomweb:
        check_url(dicomweb)
    if not settle >= 0:
        raise ConfigError(f"the seconds without a change are at least 0, not {settle:g}")
    seen, left, screened = None, 0, set[FoundScan]()
    while True:
        files = set(_stamps(folder.rglob("*")))
        changed = files != seen
        if changed:
            whole = _screen(screener, folder, output, dicomweb is not None, settle, screened)
            seen = files if whole else None
        if dicomweb and (changed or left):
            left = _send(output, dicomweb)
        if once and left:
            raise RunError(f"{left} results were not sent; the next run tries again")
        if once:
            return
        time.sleep(PAUSE)


def _stamps(paths: Iterable[Path]) -> Iterator[tuple[Path, int, int]]:
    """Sizes and times (ns) of what is there; a path that was renamed meanwhile is left out."""
    for path in paths:
        with suppress(OSError):
            facts = path.lstat()
            yield path, facts.st_size, facts.st_mtime_ns


def _screen(
    screener: Screener, folder: Path, output: Path, dicom: bool, settle: float, done: set[FoundScan]
) -> bool:
    """Screen what has settled, where some of it was not yet done; tell whether that was all."""
    found, latest = discover(folder), time.time_ns() - settle * 1e9

    def has_settled(scan: FoundScan) -> bool:
        return sum(changed <= latest for _, _, changed in _stamps(scan.files)) == len(scan.files)

    settled = tuple(filter(has_settled, found.scans))
    if not done.issuperset(settled):
        now = replace(found, scans=settled)
        batch = Batch(screener.judge, list_items(now), output, found=now, dicom=dicom)
        batch.screen(screener)
        batch.summarize()
        done.update(settled)
    return len(settled) == len(found.scans)


def _send(output: Path, url: str) -> int:
    """Send the results that were not sent to this archive; return how many still are not."""
    left = 0
    for record in all_finished(output):
        objects = [file for file in record["files"] if file.endswith(".dcm")]
        place = output / place_of(record["name"])
        note = place / f"{stem_of(record['name'])}_sent.json"
        sent = json.dumps({"run": record["run"], "to": url}) + "\n"
        if record["outcome"] == "not_assessable" or not objects:
            continue
        try:
            if note.is_file() and note.read_text("utf-8", errors="replace") == sent:
                continue
            store([place / file for file in objects], url)
            write_text(note, sent)
        except (OSError, RunError) as error:
            left += 1
            print(f"not sent yet: {record['name']}: {error}", file=sys.stderr)
        else:
            print(f"sent: {record['name']}: {len(objects)} objects", flush=True)
    return left
