"""The tables over all scans and all regions of a run, and the page of the run."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pathology_screen import __version__
from pathology_screen.files import replacing, write_text
from pathology_screen.outputs.group import group_html
from pathology_screen.outputs.layout import place_of
from pathology_screen.outputs.record import INTENDED_USE

COLUMNS = (
    *("name", "outcome", "score", "percentile", "p_value", "threshold"),
    *("healthy_low", "healthy_high", "regions", "largest_area_mm2", "scanner", "dice"),
    *("correlation", "code", "reason", "warnings", "report", "panel"),
)
REGION_COLUMNS = (
    *("name", "label", "side", "tissue", "area_mm2", "peak", "mean"),
    *("x_mm", "y_mm", "z_mm", "pixel_threshold"),
)


def worklist_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a scan: those with a score first, the highest first, then those that were not
    assessable, by name.

    The records are as `write_result` returns them. Rows have `COLUMNS`, None where there is no
    value: `threshold` and the healthy range are of the score, `regions` is their number, `warnings`
    are codes with ";" between them, `report` and `panel` paths below the folder of the results.
    """
    rows = [_row(record) for record in records]
    return sorted(rows, key=lambda row: (row["score"] is None, -(row["score"] or 0.0), row["name"]))


def region_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a region, of `REGION_COLUMNS`, the scans by name: x, y and z are its centre of
    gravity, mm of MNI152 space; healthy people exceed `pixel_threshold` in few pixels."""
    return [
        {"name": record["name"], "pixel_threshold": record["pixel_threshold"], **region}
        | dict(zip(("x_mm", "y_mm", "z_mm"), region.get("centroid_mni_mm") or ()))
        for record in sorted(records, key=lambda record: record["name"])
        for region in record["regions"]
    ]


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    regions, shown, source = record["regions"], record["slice"], record["source"]
    fit = (shown or {}).get("fit") or {}
    warnings = [finding["code"] for finding in record["findings"] if not finding["refused"]]
    low, high = record.get("healthy_range") or (None, None)

    def link(ending: str) -> str | None:
        files = (file for file in record["files"] if file.endswith(ending))
        return next((f"{place_of(record['name'])}/{file}" for file in files), None)

    scanner = [source[key] for key in ("manufacturer", "manufacturer_model") if key in source]
    if "field_strength" in source:
        scanner.append(f"{source['field_strength']} T")
    return {
        **{name: record[name] for name in COLUMNS if name in record},
        "threshold": record["image_threshold"],
        "healthy_low": low,
        "healthy_high": high,
        "regions": len(regions) if shown else None,
        "largest_area_mm2": max((region["area_mm2"] for region in regions), default=None),
        "scanner": " ".join(map(str, scanner)) or None,
        "dice": fit.get("dice"),
        "correlation": fit.get("correlation"),
        "reason": record["reason"] or None,
        "warnings": ";".join(warnings) or None,
        "report": link("_report.html"),
        "panel": link("_panel.png"),
    }


def save_overview(records: Sequence[Mapping[str, Any]], folder: Path, identity: str = "") -> None:
    """Write `scores.csv`, `regions.csv`, the page of the run, and the `dataset_description.json` of
    BIDS into the folder of the results. A browser keeps the marks of a reviewer under `identity`.
    """
    made_by = {"Name": "pathology_screen", "Version": __version__, "Description": INTENDED_USE}
    description = {
        "Name": "pathology_screen: unsupervised pathology screening",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
    }
    write_text(folder / "dataset_description.json", json.dumps(description, indent=2) + "\n")
    rows = worklist_rows(records)
    _save_table(rows, COLUMNS, folder / "scores.csv")
    _save_table(region_rows(records), REGION_COLUMNS, folder / "regions.csv")
    write_text(folder / "index.html", group_html(rows, identity))


def _save_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Write rows as CSV, whole or not at all; texts as `as_text` gives them."""
    cells = [
        {key: as_text(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    ]
    table = pd.DataFrame(cells, columns=list(columns))
    if "regions" in table:  # a number, also where a scan has none
        table = table.astype({"regions": "Int64"})
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


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
