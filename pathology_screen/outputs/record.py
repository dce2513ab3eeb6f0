"""The JSON record of one screened scan: what a program reads."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from pathology_screen.files import text_sha256
from pathology_screen.result import ScreeningResult
from pathology_screen.space import SPACE

SCHEMA_VERSION = 2
INTENDED_USE = "Research only. Not a medical device; not for diagnosis."
NUMBERS = (
    *("score", "percentile", "p_value", "image_threshold", "pixel_threshold"),
    "false_positive_rate",
)


def hide_uid(source: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with a hash for the SeriesInstanceUID, which leads back to the patient."""
    if "series_uid" not in source:
        return dict(source)
    return {**source, "series_uid": f"sha256:{text_sha256(str(source['series_uid']))[:16]}"}


def healthy_range(result: ScreeningResult) -> list[float] | None:
    """Between which scores the middle 90 % of the calibration's people lie; None for a scan without
    a score."""
    scores = result.provenance.get("healthy", {}).get("scores", ())
    if result.score is None or not len(scores):
        return None
    return [float(end) for end in np.percentile(scores, (5, 95))]


def make_record(
    result: ScreeningResult, name: str | None = None, *, keep_uids: bool = False
) -> dict[str, Any]:
    """Put a result into JSON values, as `screening.schema.json` describes them, with the name of
    the scan in the results; `keep_uids` keeps the SeriesInstanceUID, see `hide_uid`. ValueError
    where a number is NaN or infinite, which JSON does not have."""
    one, shown = result.slice, None
    if one is not None:
        where = {"space": one.fit and SPACE, "plane_mm": one.plane_mm}
        shown = {"score": one.score, **where, "fit": one.fit and asdict(one.fit)}
    record = {
        "schema_version": SCHEMA_VERSION,
        **({} if name is None else {"name": name}),
        "intended_use": INTENDED_USE,
        "outcome": result.outcome,
        "code": result.code,
        "reason": result.reason,
        "findings": [asdict(finding) for finding in result.findings],
        **{number: getattr(result, number) for number in NUMBERS},
        "healthy_range": healthy_range(result),
        "slice": shown,
        "regions": [asdict(region) | {"side": region.side} for region in result.regions],
        "source": dict(result.source) if keep_uids else hide_uid(result.source),
        "provenance": dict(result.provenance),
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
    }
    return json.loads(json.dumps(record, allow_nan=False))  # tuples become lists
