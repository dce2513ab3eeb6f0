"""The table over all scans of a run, the most suspicious first, and what lies beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pathology_screen import __version__
from pathology_screen.files import replacing, write_text
from pathology_screen.outputs.layout import place_of
from pathology_screen.outputs.record import INTENDED_USE
from pathology_screen.outputs.report import index_html

COLUMNS = (
    *("name", "outcome", "score", "percentile", "p_value", "regions", "largest_area_mm2"),
    *("code", "reason", "warnings", "report", "panel"),
)


def worklist_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a scan: those with a score first, the highest first, then those that were not
    assessable, by name.

    Args:
        records: as `write_result` returns them.

    Returns:
        Rows of `COLUMNS`, None where there is no value; `regions` is their number, `warnings` are
        codes with ";" between them, `report` and `panel` paths below the folder of the results.
    """
    rows = [_row(record) for record in records]
    return sorted(rows, key=lambda row: (row["score"] is None, -(row["score"] or 0.0), row["name"]))


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    regions = record["regions"]
    warnings = [finding["code"] for finding in record["findings"] if not finding["refused"]]

    def link(ending: str) -> str | None:
        files = (file for file in record["files"] if file.endswith(ending))
        return next((f"{place_of(record['name'])}/{file}" for file in files), None)

    return {
        **{name: record[name] for name in COLUMNS if name in record},
        "regions": len(regions) if record["slice"] else None,
        "largest_area_mm2": max((region["area_mm2"] for region in regions), default=None),
        "reason": record["reason"] or None,
        "warnings": ";".join(warnings) or None,
        "report": link("_report.html"),
        "panel": link("_panel.png"),
    }


def save_worklist(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write rows as `worklist.csv`, whole or not at all; texts as `as_text` gives them."""
    cells = [
        {key: as_text(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    ]
    table = pd.DataFrame(cells, columns=list(COLUMNS)).astype({"regions": "Int64"})
    with replacing(folder / "worklist.csv") as temporary:
        table.to_csv(temporary, index=False)


def save_overview(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write the worklist, the index page, and the `dataset_description.json` of BIDS."""
    made_by = {"Name": "pathology_screen", "Version": __version__, "Description": INTENDED_USE}
    description = {
        "Name": "pathology_screen: unsupervised pathology screening",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
    }
    write_text(folder / "dataset_description.json", json.dumps(description, indent=2) + "\n")
    save_worklist(rows, folder)
    write_text(folder / "index.html", index_html(rows))


def as_text(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe before = + - @, tab."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else cell


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Count the outcomes, and the reasons of what was not assessable, in words."""
    outcomes = Counter(row["outcome"] for row in rows)
    codes = Counter(row["code"] for row in rows if row["code"])
    reasons = ", ".join(f"{code} {count}" for code, count in codes.most_common())
    text = f"{len(rows)} scans: {outcomes['suspicious']} suspicious, {outcomes['normal']} normal, "
    text += f"{outcomes['not_assessable']} not assessable"
    return f"{text} ({reasons})" if reasons else text
