"""The page over all scans of a run: scores by scanner, fits, refusals, the table, a reviewer's
marks."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pathology_screen import __version__
from pathology_screen.errors import REFUSALS, WARNINGS
from pathology_screen.outputs.charts import Histogram, histogram
from pathology_screen.outputs.report import FIT_LIMITS, OUTCOMES
from pathology_screen.pages import render

MOST_SCANNERS = 6
"""The scores of further ones are shown together."""
MOST_ROWS = 200
"""Shown at once; a button shows as many more."""
MARKS = ("agree", "disagree", "artefact")
"""What a reviewer may say of a scan."""


def group_html(rows: Sequence[Mapping[str, Any]], identity: str = "") -> str:
    """Write the page of a run as HTML, in the order of the rows.

    The page loads the pictures beside it and nothing else. A script sorts and filters the table,
    and keeps a reviewer's marks in the browser, by the scans' names.

    Args:
        rows: as of `scores.csv`, see `worklist_rows`; None or NaN where there is no value.
        identity: of the run; pages of the same share the marks.
    """
    rows = [{key: _known(key, value) for key, value in row.items()} for row in rows]
    codes = (code for row in rows for code in (row["code"], *(row["warnings"] or "").split(";")))
    return render(
        "group",
        images="'self' file:",
        identity=identity,
        rows=rows,
        words=OUTCOMES,
        marks=MARKS,
        most=MOST_ROWS,
        counts={outcome: sum(row["outcome"] == outcome for row in rows) for outcome in OUTCOMES},
        warned=sum(row["warnings"] is not None for row in rows),
        codes=Counter(filter(None, codes)).most_common(),
        meanings={**REFUSALS, **WARNINGS},
        scanners=_scores_by_scanner([row for row in rows if row["score"] is not None]),
        threshold=next((row["threshold"] for row in rows if row["threshold"] is not None), None),
        fits=list(_fits(rows)),
        version=__version__,
    )


def _known(key: str, value: Any) -> Any:
    """None for NaN and empty text; a link as a relative URL, whatever the name of the file."""
    if value is None or value == "" or value != value:
        return None
    return quote(str(value)) if key in ("report", "panel") else value


def _scores_by_scanner(scored: Sequence[Mapping[str, Any]]) -> dict[str, Histogram]:
    """Scanner -> its scores by outcome, those with most scans first, all on the same axis."""
    by_scanner = defaultdict(list)
    for row in scored:
        by_scanner[row["scanner"] or "scanner not stated"].append(row)
    ordered = sorted(by_scanner, key=lambda scanner: -len(by_scanner[scanner]))
    for scanner in ordered[MOST_SCANNERS:]:
        by_scanner["other scanners"] += by_scanner.pop(scanner)
    ends = [row[key] for row in scored for key in ("score", "threshold") if row[key] is not None]
    return {
        f"{scanner} (n = {len(own)})": histogram(
            [row["score"] for row in own], [row["outcome"] for row in own], [min(ends), max(ends)]
        )
        for scanner, own in by_scanner.items()
    }


def _fits(rows: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, float, Histogram]]:
    """How well scans fit the template: measure, smallest that is accepted, and its histogram."""
    for measure in ("correlation", "dice"):
        fitted = [row for row in rows if row[measure] is not None]
        if fitted:
            limit, kinds = FIT_LIMITS[measure], [row["outcome"] for row in fitted]
            yield measure, limit, histogram([row[measure] for row in fitted], kinds, [limit])
