"""How good detection, localisation and reconstruction are, and how sure one can be of it."""

from pathology_screen.metrics.reconstruction import brain_correlation

__all__ = ["brain_correlation"]
