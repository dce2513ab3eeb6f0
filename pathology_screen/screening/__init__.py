"""Screening: which scans are accepted, what a network makes of them, and what that means."""

from pathology_screen.screening.inspection import Inspection, Inspector
from pathology_screen.screening.result import Finding, Region, ScreenedSlice, ScreeningResult
from pathology_screen.screening.scans import AcceptedScans, scans
from pathology_screen.screening.screener import Screener

__all__ = [
    "AcceptedScans",
    "Finding",
    "Inspection",
    "Inspector",
    "Region",
    "ScreenedSlice",
    "Screener",
    "ScreeningResult",
    "scans",
]
