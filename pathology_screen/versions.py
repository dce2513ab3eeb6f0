"""Versions of what a result depends on."""

from __future__ import annotations

import importlib.metadata

from pathology_screen import __version__


def versions() -> dict[str, str]:
    """Return the versions of the packages that a score depends on."""
    packages = ("torch", "monai", "numpy", "scikit-image", "lpips")
    return {"pathology_screen": __version__} | {name: importlib.metadata.version(name) for name in packages}
