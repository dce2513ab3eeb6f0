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
    """Load the calibration of a training run that ended.

    Raises:
        ArtifactError: if one of `FILES` is missing, or the calibration is of other weights.
    """
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
