"""Write the results of a screening run, scan by scan, as a handler of MONAI's evaluator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from monai.utils import convert_to_numpy

from pathology_screen.calibration import Calibration
from pathology_screen.files import replacing
from pathology_screen.geometry import axial_orientation, embed
from pathology_screen.outputs.figures import save_panel
from pathology_screen.outputs.nifti import save_volume
from pathology_screen.outputs.record import save_record
from pathology_screen.screening import AcceptedScans, comparable
from pathology_screen.versions import versions

VOLUMES = {"anomaly_map_volume": "anomaly", "reconstruction_volume": "reconstruction"}
"""Key of what the postprocessing took back to the scan -> what the name of its file ends in."""

RESULTS = ("_anomaly.nii.gz", "_reconstruction.nii.gz", "_panel.png", ".json")
"""What the names of a scan's files end in."""


class ScreeningWriter:
    """Handler that writes for each scan, under its name in `output_dir`:

    - `NAME_anomaly.nii.gz` and, from a method that reconstructs, `NAME_reconstruction.nii.gz`: the map and the
      pseudo-healthy slice in the scan's own geometry, zero elsewhere;
    - `NAME_panel.png`: input, reconstruction, map and regions;
    - `NAME.json`: score, thresholds and provenance;

    and `scores.csv` over all scans, refused ones included, rewritten after each scan. Files that an earlier run left
    for a scan that is refused now are removed.

    Args:
        output_dir: folder of the results.
        calibration: of the weights, preprocessing and scoring in use.
        scans: the dataset that is screened.
        method: name of the method.
        level: at which the slices are taken; a score of another level than the calibration's has no percentile.
    """

    def __init__(
        self,
        output_dir: str,
        calibration: Calibration,
        scans: AcceptedScans,
        method: str,
        level: str | int | float,
    ) -> None:
        self.folder, self.calibration, self.scans = Path(output_dir), calibration, scans
        self.method, self.level = method, level
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)

    def started(self, engine: Engine) -> None:
        self.rows = []

    def write(self, engine: Engine) -> None:
        state: Any = engine.state
        for item, output in zip(state.batch, state.output):
            self.write_scan(item | output)
        self.write_table()

    def write_scan(self, data: dict[str, Any]) -> None:
        """Write the files of one scan and note its row of the table."""
        name, meta, threshold = data["name"], data["image"].meta, self.calibration.pixel_threshold
        reconstructs = "reconstruction_volume" in data
        image, anomaly_map = (convert_to_numpy(data[key][0]) for key in ("image", "anomaly_map"))  # (H, W)
        reconstruction = convert_to_numpy(data["pred"][0]) if reconstructs else None
        part = data["anomaly_map_volume"]  # (1, i, j, k), what was read of the volume
        part_affine = convert_to_numpy(part.affine)
        shape, affine = tuple(meta["volume_shape"]), np.asarray(meta["volume_affine"])
        row = {
            "name": name,
            "status": "scored",
            "score": data["score"],
            "percentile": self.calibration.percentile(data["score"]) if self._comparable(data) else None,
            "brain_fraction_above_threshold": float((anomaly_map > threshold)[image > 0].mean()),
            "level": int(meta["level"]) + levels_below(part.shape[1:], part_affine, shape, affine),
        }
        for key in VOLUMES.keys() & data.keys():
            whole = embed(convert_to_numpy(data[key][0]), part_affine, shape, affine)  # (I, J, K)
            save_volume(whole, affine, self.folder / f"{name}_{VOLUMES[key]}.nii.gz")
        place = "not calibrated at this level"
        if row["percentile"] is not None:
            place = f"percentile {row['percentile']:.0f} of healthy slices"
        title = f"{name}   score {row['score']:.3g} ({place})"
        save_panel(image, reconstruction, anomaly_map, threshold, title, self.folder / f"{name}_panel.png")
        provenance = {
            "method": self.method,
            "calibration_id": self.calibration.calibration_id,
            "identity": self.calibration.identity,
            "versions": versions(),
            "source": json.loads(meta["source"]),
        }
        record = row | {"pixel_threshold": threshold, "intended_use": "research only", "provenance": provenance}
        save_record(record, self.folder / f"{name}.json")
        self.rows.append(row)

    def _comparable(self, data: dict[str, Any]) -> bool:
        return comparable(self.calibration, data.get("level", self.level))

    def write_table(self) -> None:
        """Write `scores.csv`: the scored scans, highest score first, then the refused ones with their codes."""
        scored = sorted(self.rows, key=lambda row: -row["score"])
        refused = [
            {"name": refusal.name, "status": "refused", "code": refusal.code, "reason": refusal.reason}
            for refusal in self.scans.refused
        ]
        for refusal in self.scans.refused:
            for suffix in RESULTS:
                (self.folder / f"{refusal.name}{suffix}").unlink(missing_ok=True)
        columns = ["name", "status", "score", "percentile", "brain_fraction_above_threshold", "level", "code", "reason"]
        with replacing(self.folder / "scores.csv") as temporary:
            pd.DataFrame(scored + refused, columns=columns).astype({"level": "Int64"}).to_csv(temporary, index=False)

    def finish(self) -> None:
        """Write the table once more, and end the program with status 1 and the reasons if a scan was refused."""
        self.write_table()
        if self.scans.refused:
            reasons = "\n".join(f"  {refusal.name}: {refusal.reason}" for refusal in self.scans.refused)
            raise SystemExit(f"{len(self.scans.refused)} of {len(self.scans.data)} scans were refused:\n{reasons}")


def levels_below(part_shape: Sequence[int], part_affine: np.ndarray, shape: Sequence[int], affine: np.ndarray) -> int:
    """Count the axial levels of a volume that lie inferior to a part of it; arguments as in `geometry.embed`."""
    axis, direction = axial_orientation(affine)
    first = round(np.linalg.solve(affine, part_affine[:, 3])[axis])
    return first if direction > 0 else shape[axis] - part_shape[axis] - first
