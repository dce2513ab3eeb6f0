"""What screening found in each study, kept between requests and processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathology_screen.files import replacing
from pathology_screen.label.model import Model
from pathology_screen.screening import ScreeningResult

KEPT = ("outcome", "code", "reason", "score", "percentile", "p_value")
"""Fields of a result."""


class Scores:
    """The scores of one model, a file a study, named by a hash of the study's id.

    They are no part of the datastore, whose own file the server and a process in the background
    would write at the same time.

    Args:
        model: whose scores these are; those of other weights, calibration or rate count for
            nothing.
        folder: where they are kept.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self.model, self.folder = model, folder

    def of(self, study: str) -> Mapping[str, Any] | None:
        """The `KEPT` fields of a study; None where it was not screened as it would be now."""
        try:
            entry = json.loads(self._path(study).read_text("utf-8"))
        except (OSError, ValueError):  # not there, or not ours: it is screened again
            return None
        now = self.model.screener().judge.calibration.calibration_id
        return entry["result"] if entry["made_by"] == self._made_by(now) else None

    def waiting(self, studies: Sequence[str]) -> list[str]:
        """Those that were not screened yet."""
        return [study for study in studies if self.of(study) is None]

    def keep(self, study: str, result: ScreeningResult) -> None:
        """Keep a result in place of an older one."""
        made_by = self._made_by(
            result.provenance["calibration_id"]
        )  # of weights that may be out of use by now
        entry = {"made_by": made_by, "result": {field: getattr(result, field) for field in KEPT}}
        with replacing(self._path(study)) as temporary:
            temporary.write_text(json.dumps(entry, allow_nan=False), "utf-8")

    def _path(self, study: str) -> Path:
        return self.folder / f"{hashlib.sha256(study.encode()).hexdigest()[:24]}.json"

    def _made_by(self, calibration_id: str) -> dict[str, Any]:
        return {"calibration_id": calibration_id, "rate": self.model.options.rate}
