"""The table over all scans of a run, the most suspicious first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pathology_screen.files import replacing

COLUMNS = (
    *(
        "name",
        "outcome",
        "score",
        "percentile",
        "p_value",
        "regions",
        "largest_area_mm2",
        "code",
        "reason",
    ),
    *("warnings", "report", "panel"),
)


def worklist_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a scan: those with a score first, the highest first, then those that were not
    assessable, by name.

    Args:
        records: as `write_result` returns them.

    Returns:
        Rows of `COLUMNS`; `warnings` are codes with ";" between them, `report` and `panel` paths
        below the folder of the results.
    """
    rows = [_row(record) for record in records]
    return sorted(rows, key=lambda row: (row["score"] is None, -(row["score"] or 0.0), row["name"]))


def save_worklist(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV, whole or not at all; texts as `as_text` gives them."""
    cells = [
        {key: as_text(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    ]
    with replacing(path) as temporary:
        pd.DataFrame(cells, columns=list(COLUMNS)).astype({"regions": "Int64"}).to_csv(
            temporary, index=False
        )


def as_text(cell: str) -> str:
    """A cell that a spreadsheet does not take for a formula: an apostrophe before = + - @, tab,
    line break."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else cell


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Count the outcomes, and the reasons of what was not assessable, in words."""
    outcomes = Counter(row["outcome"] for row in rows)
    codes = Counter(row["code"] for row in rows if row["code"])
    counted = ", ".join(
        f"{outcomes[name]} {name.replace('_', ' ')}" for name in ("suspicious", "normal")
    )
    reasons = ", ".join(f"{code} {count}" for code, count in codes.most_common())
    return f"{len(rows)} scans: {counted}, {outcomes['not_assessable']} not assessable" + (
        f" ({reasons})" if reasons else ""
    )


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    folder = f"sub-{record['name']}"
    regions = record["regions"]

    def link(ending: str) -> str | None:
        return next((f"{folder}/{file}" for file in record["files"] if file.endswith(ending)), None)

    return {
        **{
            name: record[name]
            for name in ("name", "outcome", "score", "percentile", "p_value", "code")
        },
        "regions": len(regions) if record["slice"] else None,
        "largest_area_mm2": max((region["area_mm2"] for region in regions), default=None),
        "reason": record["reason"] or None,
        "warnings": ";".join(
            finding["code"] for finding in record["findings"] if not finding["refused"]
        )
        or None,
        "report": link("_report.html"),
        "panel": link("_panel.png"),
    }
