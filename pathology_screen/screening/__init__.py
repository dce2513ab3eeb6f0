"""Screening: which scans are accepted, what a network makes of them, and what that means."""

from pathology_screen.result import ScreeningResult
from pathology_screen.screening.inspection import Inspector
from pathology_screen.screening.screener import Screener

__all__ = ["Inspector", "Screener", "ScreeningResult"]
