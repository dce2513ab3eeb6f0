"""Ship the weights of a training run in its bundle, with all that says where they come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError
from pathology_screen.files import replacing, sha256

FILES = {
    "model.pt": "model.pt",
    "calibration.json": "calibration.json",
    "log.csv": "training_log.csv",
}
"""File of a run -> its name in the bundle's `models/`."""


def publish(run: Path, bundle: Path, made_by: str) -> Path:
    """Copy `model.pt`, `calibration.json` and `log.csv` of a run into a bundle's `models/`.

    Args:
        run: output folder of a training run.
        bundle: folder of the bundle.
        made_by: the command that made the weights.

    Returns:
        The folder `models/`; its `origin.json` holds hash, calibration id and `made_by`.

    Raises:
        ArtifactError: if a file is missing or of other weights; the bundle is as before.
    """
    for name in FILES:
        if not (run / name).is_file():
            raise ArtifactError(f"the run has no {name}: let it end first")
    weights, calibration = sha256(run / "model.pt"), Calibration.load(run / "calibration.json")
    if calibration.identity.get("weights_sha256") != weights:
        raise ArtifactError(
            "calibration.json belongs to other weights than model.pt; run `calibrating` first"
        )
    origin = {
        "weights_sha256": weights,
        "calibration_id": calibration.calibration_id,
        "made_by": made_by,
    }
    models = bundle / "models"
    for source, target in FILES.items():
        with replacing(models / target) as temporary:
            shutil.copyfile(run / source, temporary)
    with replacing(models / "origin.json") as temporary:
        temporary.write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    return models
