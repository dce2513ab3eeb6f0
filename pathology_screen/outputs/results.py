"""Write everything about one screened scan into a folder of its own, as a BIDS derivative."""

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pathology_screen.errors import RunError
from pathology_screen.files import replacing, write_text
from pathology_screen.io.find import folder_of
from pathology_screen.outputs.figures import plane_in_words, save_panel
from pathology_screen.outputs.record import make_record
from pathology_screen.outputs.report import report_html
from pathology_screen.result import ScreeningResult
from pathology_screen.space import SPACE

SIDECARS: Mapping[str, Mapping[str, Any]] = {
    "desc-anomaly_map": {
        "Description": "How the scan differs from its pseudo-healthy reconstruction; "
        "0 where the plane does not cut it",
        "Units": "arbitrary",
    },
    "desc-pseudohealthy_T1w": {
        "Description": "Pseudo-healthy reconstruction; 0 where the plane does not cut the scan",
        "Units": "1: the 98th percentile of the brain in the plane",
    },
    "desc-anomaly_dseg": {
        "Description": "Label of the region above the pixel threshold, 1 with the highest peak; "
        "0 elsewhere"
    },
}
"""What the name of a volume ends in -> what its JSON sidecar says, beside the plane."""

PARTS = ("desc-", "panel.", "report.", "dicom/")
"""What follows the stem in the names of a scan's files, beside the record."""


def stem_of(name: str) -> str:
    """What the names of a scan's files begin with: `sub-NAME`, or the entities that are the name of
    a BIDS image (`sub-01_ses-1`)."""
    return name if name.startswith("sub-") else f"sub-{name}"


def place_of(name: str) -> str:
    """Folder of the files below that of all results: `sub-NAME`; of a BIDS image, that of the image
    (`sub-01/ses-1/anat`), where others may lie beside it."""
    return folder_of(name) if name.startswith("sub-") else f"sub-{name}"


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
    """Write the files of one scan into its folder, see `place_of`; what another run left goes.

    The files are made in a temporary folder and moved in one by one, the record last: where there
    is a record, all that it lists is there. Two processes may write the same scan at once.

    Args:
        name: of the scan: letters and digits, which become the BIDS label of the subject; or the
            entities of a BIDS image.
        folder: of all results.
        dicom_source: what the scan was read from, to write DICOM objects of the same study; with
            `series_uid`, of the series in it.
        run: identity of what was done, for `finished`.
        source_id: identity of the scan, see `io.FoundScan`.

    Returns:
        The record, as it was written.

    Raises:
        ConfigError: if DICOM objects are asked for and the source is not DICOM.
        RunError: if the folder has a result of another scan (of another `source_id`) by this name.
        OSError: if the folder cannot be written.
    """
    if free_name(folder, name, source_id) != name:
        has = f"{folder.name}/{place_of(name)} has the result of another scan"
        raise RunError(f"{has}: choose another name, or another folder")
    stem, target = stem_of(name), folder / place_of(name)
    target.mkdir(parents=True, exist_ok=True)
    made = folder / f".{stem}-{secrets.token_hex(4)}"
    try:
        made.mkdir()
        _write_files(result, name, made, report)
        if dicom_source is not None:
            from pathology_screen.outputs.dicom import write_dicom  # not where highdicom is absent

            write_dicom(result, dicom_source, made / f"{stem}_dicom", series_uid=series_uid)
        files = sorted(_files(made))
        record = make_record(result, name, keep_uids=dicom_source is not None)
        record |= {"source_id": source_id, "files": files, "run": run}
        record_name = f"{stem}_screening.json"
        text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(made / record_name, text + "\n")
        (target / record_name).unlink(missing_ok=True)  # it would vouch for files of two runs
        for file in files:
            (target / file).parent.mkdir(exist_ok=True)
            (made / file).replace(target / file)
        for old in _files(target) - {*files, record_name}:
            if old.startswith(tuple(f"{stem}_{part}" for part in PARTS)):
                (target / old).unlink(missing_ok=True)
        (made / record_name).replace(target / record_name)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return record


def finished(folder: Path, name: str, run: str | None = None) -> dict[str, Any] | None:
    """Return the record of a scan in the folder of all results, if all its files are there and it
    is of this `run` (None takes any); else None."""
    record = _stored(folder, name)
    if record is None or run not in (None, record.get("run")):
        return None
    try:
        whole = all((folder / place_of(name) / file).is_file() for file in record["files"])
    except (KeyError, TypeError):  # not ours: screen it again
        return None
    return record if whole else None


def all_finished(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all scans in the folder of all results, in order of paths."""
    names = []
    for path in sorted(folder.glob("sub-*/**/*_screening.json")):
        name = path.name.removesuffix("_screening.json")
        names.append(name if path.parent.name == "anat" else name.removeprefix("sub-"))
    return [record for name in names if (record := finished(folder, name)) is not None]


def free_name(folder: Path, name: str, source_id: str) -> str:
    """The name for the result of a scan: another where that is another scan's."""
    record = _stored(folder, name)
    taken = record is not None and str(record.get("source_id", "")) != source_id
    return f"{name}x{source_id[:12]}" if taken else name


def _stored(folder: Path, name: str) -> dict[str, Any] | None:
    """The record of a scan as it lies there; None where there is none."""
    path = folder / place_of(name) / f"{stem_of(name)}_screening.json"
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _files(folder: Path) -> set[str]:
    """Paths of the files at any depth, below the folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _write_files(result: ScreeningResult, name: str, folder: Path, report: bool) -> None:
    stem, one = folder / stem_of(name), result.slice
    if one is not None and result.affine is not None:
        plane: dict[str, Any] | str = "a single slice, not registered"
        if one.fit is not None and one.mni_affine is not None:
            # mm of MNI152 -> RAS+ mm of the scan
            to_scan = (one.affine @ np.linalg.inv(one.mni_affine)).round(6).tolist()
            plane = {"space": SPACE, "z_mm": one.plane_mm, "to_scan": to_scan}
            plane["fit"] = asdict(one.fit)
        volumes = (result.map_volume, result.reconstruction_volume, result.regions_volume)
        for suffix, values in zip(SIDECARS, volumes):
            if values is None:
                continue
            save_volume(values, result.affine, Path(f"{stem}_{suffix}.nii.gz"))
            sidecar = {**SIDECARS[suffix], "SpatialReference": "orig", "Plane": plane}
            if suffix.endswith("T1w"):
                domain = result.provenance["identity"]["slice"]["domain"]
                sidecar["SkullStripped"] = domain == "brain_extracted"
            write_text(f"{stem}_{suffix}.json", json.dumps(sidecar, indent=2) + "\n")
        told = f"not assessable ({result.code})"
        if result.score is not None:
            told = f"{result.outcome}, score {result.score:.3g}, "
            told += f"percentile {result.percentile:.0f} of healthy people"
        title = f"{stem_of(name)}   {told}   {plane_in_words(one)}"
        save_panel(one, result.pixel_threshold or 0.0, title, Path(f"{stem}_panel.png"))
    if report:
        write_text(f"{stem}_report.html", report_html(result, name))


def save_volume(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write values (I, J, K) as NIfTI, labels as uint16 and all else as float32, with an affine
    (4, 4) in RAS+ mm; the header holds nothing else of the source."""
    kind = np.uint16 if np.issubdtype(values.dtype, np.integer) else np.float32
    image = nib.Nifti1Image(np.asarray(values, dtype=kind), affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        image.to_filename(temporary)
