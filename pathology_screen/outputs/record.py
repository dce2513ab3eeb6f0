"""The JSON record of one screened scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pathology_screen.files import replacing


def save_record(record: dict[str, Any], path: Path) -> None:
    """Write a record as indented JSON; NaN and infinite values raise ValueError, since JSON has none."""
    text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
