"""Write everything about one screened scan into a folder of its own, as a BIDS derivative."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pathology_screen import __version__
from pathology_screen.errors import RunError
from pathology_screen.files import replacing
from pathology_screen.outputs.figures import save_panel
from pathology_screen.outputs.nifti import save_volume
from pathology_screen.outputs.record import INTENDED_USE, hide_uid, make_record, save_record
from pathology_screen.outputs.report import save_report
from pathology_screen.outputs.template_outline import template_on_slice
from pathology_screen.outputs.words import plane_in_words
from pathology_screen.result import ScreenedSlice, ScreeningResult
from pathology_screen.space import SPACE

SIDECARS: Mapping[str, Mapping[str, Any]] = {
    "desc-anomaly_map": {
        "Description": "How the scan differs from its pseudo-healthy reconstruction; 0 where the plane does not cut it",
        "Units": "arbitrary",
    },
    "desc-pseudohealthy_T1w": {
        "Description": "Pseudo-healthy reconstruction; 0 where the plane does not cut the scan",
        "Units": "1: the 98th percentile of the brain in the plane",
    },
    "desc-anomaly_dseg": {
        "Description": "Label of the region above the pixel threshold, 1 with the highest peak; 0 elsewhere"
    },
}
"""What the name of a volume ends in -> what its JSON sidecar says, beside `_where`."""


def write_result(
    result: ScreeningResult,
    name: str,
    folder: Path,
    *,
    report: bool = True,
    dicom_source: Path | Sequence[Path] | None = None,
    series_uid: str | None = None,
    run: str = "",
    source_id: str = "",
) -> dict[str, Any]:
    """Write the files of one scan into `folder/sub-NAME`; whatever another run of the same scan
    left there goes.

    The files are made in a temporary folder and moved in one by one, the record last: where there
    is a record, all that it lists is there. Two processes may write the same scan at once.

    Args:
        result: of screening.
        name: of the scan, letters and digits; it becomes the BIDS label of the subject.
        folder: of all results.
        report: whether to write the HTML report.
        dicom_source: what the scan was read from, to write DICOM objects of the same study.
        series_uid: of the series in `dicom_source`.
        run: identity of what was done, for `finished`.
        source_id: identity of the scan, see `io.FoundScan`.

    Returns:
        The record, as it was written.

    Raises:
        ConfigError: if DICOM objects are asked for and the source is not DICOM.
        RunError: if the folder has a result of another scan (of another `source_id`) by this name.
        OSError: if the folder cannot be written.
    """
    known = owner(folder, name)
    if known is not None and known != source_id:
        raise RunError(
            f"{folder.name}/sub-{name} is the result of another scan: choose another name, or another folder"
        )
    target = folder / f"sub-{name}"
    target.mkdir(parents=True, exist_ok=True)
    made = folder / f".sub-{name}-{secrets.token_hex(4)}"
    try:
        made.mkdir()
        _write_files(result if dicom_source else hide_uid(result), name, made, report)
        if dicom_source is not None:
            from pathology_screen.outputs.dicom import write_dicom  # not where highdicom is absent

            write_dicom(result, dicom_source, made / f"sub-{name}_dicom", series_uid=series_uid)
        files = sorted(
            path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()
        )
        record_name = f"sub-{name}_screening.json"
        record = make_record(result, name, keep_uids=dicom_source is not None)
        record |= {"source_id": source_id, "files": files, "run": run}
        save_record(record, made / record_name)
        (target / record_name).unlink(missing_ok=True)  # it would vouch for files of two runs
        for file in files:
            (target / file).parent.mkdir(exist_ok=True)
            (made / file).replace(target / file)
        for old in sorted(target.rglob("*"), reverse=True):
            if old.is_file() and old.relative_to(target).as_posix() not in (*files, record_name):
                old.unlink(missing_ok=True)
        (made / record_name).replace(target / record_name)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return record


def finished(folder: Path, name: str, run: str | None = None) -> dict[str, Any] | None:
    """Return the record of a scan that was screened, with all its files; None where there is none,
    or of another run.

    Args:
        folder: of all results.
        name: of the scan.
        run: as given to `write_result`; None takes any.
    """
    target = folder / f"sub-{name}"
    try:
        record = json.loads((target / f"sub-{name}_screening.json").read_text("utf-8"))
        same = run is None or record["run"] == run
        whole = all((target / file).is_file() for file in record["files"])
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ):  # absent, or not ours: screen it again
        return None
    return record if same and whole else None


def owner(folder: Path, name: str) -> str | None:
    """Identity of the scan whose result has this name, "" where it states none; None where there is
    no result."""
    try:
        record = json.loads(
            (folder / f"sub-{name}" / f"sub-{name}_screening.json").read_text("utf-8")
        )
        return str(record.get("source_id", ""))
    except (OSError, ValueError, AttributeError, RecursionError):  # absent, or no record
        return None


def free_name(folder: Path, name: str, source_id: str) -> str:
    """The name for the result of a scan: another one than asked for where that is the name of
    another scan's result."""
    return name if owner(folder, name) in (None, source_id) else f"{name}x{source_id[:12]}"


def write_dataset_description(folder: Path) -> None:
    """Write the `dataset_description.json` that BIDS asks of a folder of derivatives."""
    description = {
        "Name": "pathology_screen: unsupervised pathology screening",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "pathology_screen", "Version": __version__, "Description": INTENDED_USE}
        ],
    }
    with replacing(folder / "dataset_description.json") as temporary:
        temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _write_files(result: ScreeningResult, name: str, folder: Path, report: bool) -> None:
    stem = f"sub-{name}"
    if result.slice is not None and result.affine is not None:
        volumes = {
            "desc-anomaly_map": result.map_volume,
            "desc-pseudohealthy_T1w": result.reconstruction_volume,
            "desc-anomaly_dseg": result.regions_volume,
        }
        where = _where(result.slice)
        for suffix, values in volumes.items():
            if values is None:
                continue
            save_volume(values, result.affine, folder / f"{stem}_{suffix}.nii.gz")
            sidecar = dict(SIDECARS[suffix]) | where
            if suffix.endswith("T1w"):
                sidecar["SkullStripped"] = (
                    result.provenance["identity"]["slice"]["domain"] == "brain_extracted"
                )
            (folder / f"{stem}_{suffix}.json").write_text(
                json.dumps(sidecar, indent=2) + "\n", encoding="utf-8"
            )
        _save_panel(
            result, result.slice, f"{stem}   {headline(result)}", folder / f"{stem}_panel.png"
        )
    if report:
        save_report(result, name, folder / f"{stem}_report.html")


def _where(one: ScreenedSlice) -> dict[str, Any]:
    """What a sidecar says of the plane that a volume shows."""
    if one.fit is None or one.mni_affine is None:
        return {"SpatialReference": "orig", "Plane": "a single slice, not registered"}
    to_scan = one.affine @ np.linalg.inv(one.mni_affine)  # mm of MNI152 -> RAS+ mm of the scan
    plane = {
        "space": SPACE,
        "z_mm": one.plane_mm,
        "to_scan": to_scan.round(6).tolist(),
        "fit": asdict(one.fit),
    }
    return {"SpatialReference": "orig", "Plane": plane}


def _save_panel(result: ScreeningResult, one: ScreenedSlice, title: str, path: Path) -> None:
    pictures = one.image, one.reconstruction, one.anomaly_map
    save_panel(*pictures, result.pixel_threshold or 0.0, title, path, template_on_slice(one))


def headline(result: ScreeningResult) -> str:
    """The outcome and the plane in one line."""
    plane = f"   {plane_in_words(result.slice)}" if result.slice else ""
    if result.score is None:
        return f"not assessable ({result.code}){plane}"
    return f"{result.outcome}, score {result.score:.3g}, percentile {result.percentile:.0f} of healthy people{plane}"
