"""Ship the weights of a training run in its bundle, with all that says where they come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError
from pathology_screen.files import replacing, sha256


def publish(run: Path, bundle: Path, made_by: str) -> Path:
    """Copy `model.pt`, `log.csv` and, of a method, `calibration.json` of a run into the bundle's `models/`, and note
    their origin.

    Args:
        run: output folder of a training run.
        bundle: folder of the bundle.
        made_by: the command that made the weights.

    Returns:
        The folder `models/`; its `origin.json` holds the hash of the weights, the calibration's id, and `made_by`.

    Raises:
        ArtifactError: if a file is missing, or the calibration belongs to other weights; the bundle is as before then.
    """
    files = {"model.pt": "model.pt", "log.csv": "training_log.csv"}
    scores = bundle.resolve().name != "pose"  # which only says where a brain lies
    if scores:
        files["calibration.json"] = "calibration.json"
    for name in files:
        if not (run / name).is_file():
            raise ArtifactError(f"the run has no {name}: let it end first")
    origin = {"weights_sha256": sha256(run / "model.pt"), "made_by": made_by}
    if scores:
        calibration = Calibration.load(run / "calibration.json")
        if calibration.identity.get("weights_sha256") != origin["weights_sha256"]:
            raise ArtifactError("calibration.json belongs to other weights than model.pt; run `calibrating` first")
        origin["calibration_id"] = calibration.calibration_id
    models = bundle / "models"
    for source, target in files.items():
        with replacing(models / target) as temporary:
            shutil.copyfile(run / source, temporary)
    with replacing(models / "origin.json") as temporary:
        temporary.write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    return models
