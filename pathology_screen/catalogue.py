"""The methods with their bundles, weights and calibrations: what `pathology-screen info` tells."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pathology_screen import __version__
from pathology_screen.bundles import bundle_root
from pathology_screen.files import sha256
from pathology_screen.registry import METHODS

SCHEMA_VERSION = 1


def catalogue() -> dict[str, Any]:
    """List all methods.

    Returns:
        JSON values; within a `schema_version` keys are added, never changed:

        - `schema_version`: 1
        - `version`: of this package
        - `methods`: a list, in each

            - `name`, `title`, `paper`
            - `is_control`: whether it learns nothing and has no bundle
            - `parameters`: profile -> number of trained parameters
            - `bundle`: its folder; None for a control
            - `weights`: `bytes` and `sha256`; None where there are none
            - `calibration`: `slices`, `subjects` (numbers) and `calibration_id`, all None in a
              damaged one; None where there is none
    """
    methods = []
    for method in METHODS.values():
        root = None if method.is_control else bundle_root(method.name)
        methods.append(
            {
                "name": method.name,
                "title": method.title,
                "paper": method.paper,
                "is_control": method.is_control,
                "parameters": dict(method.parameters),
                "bundle": root and str(root),
                "weights": root and _weights(root / "models/model.pt"),
                "calibration": root and _calibration(root / "models/calibration.json"),
            }
        )
    return {"schema_version": SCHEMA_VERSION, "version": __version__, "methods": methods}


def _weights(path: Path) -> dict[str, Any] | None:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)} if path.is_file() else None


def _calibration(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        slices, people = len(found["scores"]), len(set(found["subjects"]))
        name = str(found["calibration_id"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return dict.fromkeys(("slices", "subjects", "calibration_id"))
    return {"slices": slices, "subjects": people, "calibration_id": name}


def as_text(found: Mapping[str, Any]) -> str:
    """What `catalogue` gives, in lines to read."""
    return "\n".join(line for method in found["methods"] for line in _lines(method))


def _lines(method: Mapping[str, Any]) -> Iterator[str]:
    yield f"{method['name']}: {method['title']}\n    paper       {method['paper']}"
    if method["is_control"]:
        yield "    learns nothing, has no bundle"
        return
    counts = method["parameters"].items()
    yield f"    parameters  {', '.join(f'{n:,} ({name} profile)' for name, n in counts)}"
    yield f"    bundle      {method['bundle']}"
    weights, fitted, text = method["weights"], method["calibration"], "none"
    kept = weights and f"{weights['bytes'] / 1e6:.1f} MB, sha256 {weights['sha256']}"
    yield f"    weights     {kept or 'none yet: train first'}"
    if fitted:
        text = f"{fitted['slices']} slices of {fitted['subjects']} healthy subjects"
        name = fitted["calibration_id"]
        text = f"{text}, id {name[:12]}" if name else "damaged"
    yield f"    calibration {text}"
