"""Ship the weights of a training run in its bundle, with all that says where they come from."""

import json
import shutil
from pathlib import Path

from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError
from pathology_screen.files import replacing, sha256, write_text

FILES = {
    "model.pt": "model.pt",
    "calibration.json": "calibration.json",
    "log.csv": "training_log.csv",
}
"""File of a run -> its name in the bundle's `models/`."""


def calibration_of(run: Path) -> Calibration:
    """Load the calibration of a training run; an `ArtifactError` tells of a run that did not end,
    or was calibrated with other weights."""
    for name in FILES:
        if not (run / name).is_file():
            raise ArtifactError(f"the run has no {name}: let it end first")
    calibration = Calibration.load(run / "calibration.json")
    if calibration.identity.get("weights_sha256") != sha256(run / "model.pt"):
        raise ArtifactError(
            "calibration.json belongs to other weights than model.pt; run `calibrating` first"
        )
    return calibration


def publish(run: Path, bundle: Path, made_by: str) -> Path:
    """Copy `FILES` of a run into `models/` of a bundle's folder, which is returned; its
    `origin.json` holds hash, calibration id and the command that made the weights.

    Raises:
        ArtifactError: as of `calibration_of`; the bundle is as before.
    """
    calibration = calibration_of(run)
    origin = {
        "weights_sha256": calibration.identity["weights_sha256"],
        "calibration_id": calibration.calibration_id,
        "made_by": made_by,
    }
    models = bundle / "models"
    for source, target in FILES.items():
        with replacing(models / target) as temporary:
            shutil.copyfile(run / source, temporary)
    write_text(models / "origin.json", json.dumps(origin, indent=2) + "\n")
    return models
