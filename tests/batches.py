"""Items of a batch, and what its folder of results holds."""

from __future__ import annotations

import json
from pathlib import Path

from pathology_screen.io import FoundScan, source_id
from pathology_screen.screening import Screener
from pathology_screen.screening.batch import Batch, Item


def item(name: str, path: str | Path, **options) -> Item:
    """The scan at a path, by a name of its own."""
    path = Path(path)
    return Item(name, FoundScan(path, (path,), None, source_id(path)), options)


def screen(screener: Screener, items: list[Item], out: Path, **options) -> list[dict]:
    """Screen items into a folder; gives the rows of the worklist."""
    return Batch(screener.judge, items, out, **options).screen(screener)


def contents(folder: Path) -> dict[str, object]:
    """Path -> content of every file below a folder, but for what depends on the clock."""
    found: dict[str, object] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.endswith("_screening.json"):
            found[name] = json.loads(path.read_text()) | {"seconds": None}
        elif name.endswith("_report.html") or name == "run.json":  # show the seconds
            found[name] = True
        else:
            found[name] = path.read_bytes()
    return found
