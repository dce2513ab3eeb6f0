"""The JSON record of one screened scan: what a program reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pathology_screen.files import replacing
from pathology_screen.result import ScanContext, ScreenedSlice, ScreeningResult
from pathology_screen.space import SPACE

SCHEMA_VERSION = 2
INTENDED_USE = "Research only. Not a medical device; not for diagnosis."

Sourced = TypeVar("Sourced", ScreeningResult, ScanContext)


def hide_uid(result: Sourced) -> Sourced:
    """The same result with a hash in place of the SeriesInstanceUID, which leads back to the
    patient."""
    if "series_uid" not in result.source:
        return result
    digest = hashlib.sha256(str(result.source["series_uid"]).encode()).hexdigest()
    return replace(result, source={**result.source, "series_uid": f"sha256:{digest[:16]}"})


def make_record(result: ScreeningResult, name: str, *, keep_uids: bool = False) -> dict[str, Any]:
    """Put a result into JSON values, without its pictures and volumes.

    Args:
        result: of screening.
        name: of the scan in the results.
        keep_uids: whether the SeriesInstanceUID stays, see `hide_uid`.

    Returns:
        What `screening.schema.json` describes.

    Raises:
        ValueError: if a number is NaN or infinite, which JSON does not have.
    """
    if not keep_uids:
        result = hide_uid(result)
    record = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "intended_use": INTENDED_USE,
        "outcome": result.outcome,
        "code": result.code,
        "reason": result.reason,
        "findings": [asdict(finding) for finding in result.findings],
        "score": result.score,
        "percentile": result.percentile,
        "p_value": result.p_value,
        "image_threshold": result.image_threshold,
        "pixel_threshold": result.pixel_threshold,
        "false_positive_rate": result.false_positive_rate,
        "slice": None if result.slice is None else _slice(result.slice),
        "regions": [asdict(region) | {"side": region.side} for region in result.regions],
        "source": dict(result.source),
        "provenance": dict(result.provenance),
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
    }
    return json.loads(json.dumps(record, allow_nan=False))  # tuples become lists


def _slice(one: ScreenedSlice) -> dict[str, Any]:
    return {
        "score": one.score,
        "space": None if one.fit is None else SPACE,
        "plane_mm": one.plane_mm,
        "fit": None if one.fit is None else asdict(one.fit),
    }


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a record."""
    return json.loads((files(__package__) / "screening.schema.json").read_text("utf-8"))


def save_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a record as indented JSON; NaN and infinite values raise ValueError, since JSON has
    none."""
    text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
