"""Outcomes and the plane in words."""

from __future__ import annotations

from pathology_screen.result import ScreenedSlice

OUTCOMES = {
    "suspicious": ("▲", "Suspicious"),
    "normal": ("●", "Normal"),
    "not_assessable": ("✕", "Not assessable"),
}
"""Outcome -> a sign, so that it does not hang on a colour, and a word."""


def plane_in_words(one: ScreenedSlice) -> str:
    """Which slice was screened."""
    if one.fit is None or one.plane_mm is None:
        return "single slice, not registered"
    return f"plane z = {one.plane_mm:+g} mm of MNI152"
