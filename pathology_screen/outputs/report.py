"""The report of one screened scan: one HTML file that stands alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pathology_screen import __version__
from pathology_screen.errors import REFUSALS, WARNINGS
from pathology_screen.files import replacing
from pathology_screen.geometry import spacing
from pathology_screen.outputs.charts import Distribution, distribution
from pathology_screen.outputs.viewer import make_viewer
from pathology_screen.outputs.words import OUTCOMES, plane_in_words
from pathology_screen.pages import render
from pathology_screen.result import ScreeningResult
from pathology_screen.space import registration

FIT_LIMITS = {
    "dice": registration.SMALLEST_DICE,
    "correlation": registration.SMALLEST_CORRELATION,
    "turn": registration.LARGEST_TURN,
    "shown": registration.SMALLEST_SHARE_SHOWN,
}
UNITS = {
    "obliquity_deg": ("obliquity", "°"),
    "field_strength": ("field strength", "T"),
    "echo_time": ("echo time", "ms"),
    "effective_echo_time": ("effective echo time", "ms"),
    "repetition_time": ("repetition time", "ms"),
    "inversion_time": ("inversion time", "ms"),
    "flip_angle": ("flip angle", "°"),
    "slice_thickness": ("slice thickness", "mm"),
}
"""Entries of `ScreeningResult.source` that have a unit: what they are called, and the unit."""


def report_html(result: ScreeningResult, name: str) -> str:
    """Write the report of a screening result as an HTML page.

    The same result gives the same text. The page loads nothing and holds neither a path nor a date.

    Args:
        result: of one scan.
        name: of the scan, as its files are named; no patient data.
    """
    healthy = result.provenance.get("healthy", {})
    return render(
        "report",
        name=name,
        words=OUTCOMES,
        result=result,
        reason=_reason(result),
        people=healthy.get("subjects"),
        meanings={**REFUSALS, **WARNINGS},
        view=make_viewer(result),
        plane=plane_in_words(result.slice) if result.slice else "",
        limits=FIT_LIMITS,
        distribution=_distribution(result),
        acquisition=_acquisition(result),
        provenance=list(_facts(_made_of(result.provenance))),
        version=__version__,
    )


def save_report(result: ScreeningResult, name: str, path: Path | str) -> None:
    """Write `report_html` to a file, whole or not at all."""
    page = report_html(result, name)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _distribution(result: ScreeningResult) -> Distribution | None:
    scores = result.provenance.get("healthy", {}).get("scores", ())
    if result.score is None or result.image_threshold is None or not len(scores):
        return None
    return distribution(scores, result.score, result.image_threshold)


def _reason(result: ScreeningResult) -> tuple[str, str]:
    """Why a scan was not assessable, and what the user can do about it."""
    hint = next((finding.hint for finding in result.findings if finding.refused), "")
    return result.reason.removeprefix(f"[{result.code}] ").removesuffix(hint), hint


def _acquisition(result: ScreeningResult) -> list[tuple[str, str]]:
    facts = []
    for key, value in result.source.items():
        if key == "series_uid":  # it leads back to the patient
            continue
        label, unit = UNITS.get(key, (key.replace("_", " "), ""))
        facts.append((label, f"{_text(value)} {unit}".strip()))
    if result.affine is not None and result.map_volume is not None:
        facts += [("voxels", " × ".join(map(str, result.map_volume.shape)))]
        facts += [
            ("voxel size", " × ".join(f"{side:.3g}" for side in spacing(result.affine)) + " mm")
        ]
    return facts


def _made_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance as it is listed: without the healthy scores, which are drawn."""
    rest = {key: value for key, value in provenance.items() if key not in ("healthy", "identity")}
    return {**rest, **provenance.get("identity", {})}


def _facts(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested values, each with its place in words."""
    for key, inner in value.items():
        label = f"{above}{key.replace('_', ' ')}"
        if isinstance(inner, Mapping):
            yield from _facts(inner, f"{label} · ")
        else:
            yield label, _text(inner)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(part) for part in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
