"""The page of one screened scan."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pathology_screen import __version__
from pathology_screen.errors import REFUSALS, WARNINGS
from pathology_screen.geometry import spacing
from pathology_screen.outputs.charts import histogram
from pathology_screen.outputs.figures import make_viewer, plane_in_words
from pathology_screen.outputs.record import healthy_range
from pathology_screen.pages import render
from pathology_screen.result import ScreeningResult
from pathology_screen.space import registration

OUTCOMES = {
    "suspicious": ("▲", "Suspicious"),
    "normal": ("●", "Normal"),
    "not_assessable": ("✕", "Not assessable"),
}
"""Outcome -> a sign, so that it does not hang on a colour, and a word."""
FIT_LIMITS = {
    "dice": registration.SMALLEST_DICE,
    "correlation": registration.SMALLEST_CORRELATION,
    "turn": registration.LARGEST_TURN,
    "shown": registration.SMALLEST_SHARE_SHOWN,
}
UNITS = {
    **dict.fromkeys(("obliquity_deg", "flip_angle"), "°"),
    **dict.fromkeys(("echo_time", "effective_echo_time"), "ms"),
    **dict.fromkeys(("repetition_time", "inversion_time"), "ms"),
    **{"field_strength": "T", "slice_thickness": "mm"},
}
"""Units of entries of `ScreeningResult.source`."""


def report_html(result: ScreeningResult, name: str) -> str:
    """Write the report of a scan, by the name that its files have, as one HTML page.

    The same result gives the same text. The page loads nothing and holds neither a path nor a date.
    """
    hint = next((finding.hint for finding in result.findings if finding.refused), "")
    reason = result.reason.removeprefix(f"[{result.code}] ").removesuffix(hint)
    provenance = dict(result.provenance)
    healthy, identity = provenance.pop("healthy", {}), provenance.pop("identity", {})
    scores, limits = healthy.get("scores", ()), (result.score, result.image_threshold)
    distribution = None
    if None not in limits and len(scores):
        distribution = histogram(scores, ["healthy"] * len(scores), limits)  # type: ignore[arg-type]
    return render(
        "report",
        name=name,
        words=OUTCOMES,
        result=result,
        reason=(reason, hint),
        people=healthy.get("subjects"),
        range=healthy_range(result),
        meanings={**REFUSALS, **WARNINGS},
        view=make_viewer(result),
        plane=plane_in_words(result.slice) if result.slice else "",
        limits=FIT_LIMITS,
        distribution=distribution,
        acquisition=_acquisition(result),
        provenance=list(_facts({**provenance, **identity})),
        version=__version__,
    )


def _acquisition(result: ScreeningResult) -> list[tuple[str, str]]:
    facts = [
        (key.removesuffix("_deg").replace("_", " "), f"{_text(value)} {UNITS.get(key, '')}".strip())
        for key, value in result.source.items()
        if key != "series_uid"  # it leads back to the patient
    ]
    if result.affine is not None and result.map_volume is not None:
        facts.append(("voxels", " × ".join(map(str, result.map_volume.shape))))
        sides = " × ".join(f"{side:.3g}" for side in spacing(result.affine))
        facts.append(("voxel size", f"{sides} mm"))
    return facts


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
