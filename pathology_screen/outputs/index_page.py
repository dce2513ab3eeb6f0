"""The page over a screening run: what became of each scan, and the way to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pathology_screen import __version__
from pathology_screen.files import replacing
from pathology_screen.outputs.charts import histogram
from pathology_screen.outputs.words import OUTCOMES
from pathology_screen.pages import render

LINKS = ("report", "panel")


def index_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the index of a run as an HTML page, in the order of the rows.

    The page loads the pictures beside it and nothing else.

    Args:
        rows: as of `worklist.csv`: `name`, `outcome`, `score`, `percentile`, `p_value`, `regions`
            (their number), `largest_area_mm2`, `code`, `reason`, `warnings` (codes with ";" between
            them), and `report` and `panel`, paths relative to the page. None or NaN where there is
            none.
    """
    rows = [{key: _known(key, value) for key, value in row.items()} for row in rows]
    scored = [row for row in rows if row["score"] is not None]
    return render(
        "index",
        images="'self' file:",
        rows=rows,
        words=OUTCOMES,
        counts={outcome: sum(row["outcome"] == outcome for row in rows) for outcome in OUTCOMES},
        scored=len(scored),
        histogram=histogram([row["score"] for row in scored], [row["outcome"] for row in scored])
        if scored
        else None,
        version=__version__,
    )


def save_index(rows: Sequence[Mapping[str, Any]], path: Path | str) -> None:
    """Write `index_html` to a file, whole or not at all."""
    page = index_html(rows)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _known(key: str, value: Any) -> Any:
    """None in place of NaN and empty text; a link as a relative URL, whatever the name of the
    file."""
    if value is None or value == "" or value != value:
        return None
    return quote(str(value)) if key in LINKS else value
