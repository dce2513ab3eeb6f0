"""Studies of a MONAI Label datastore, and which of them readers marked as normal."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pathology_screen.cohorts.folder import SUBJECT_LABEL
from pathology_screen.errors import ConfigError
from pathology_screen.io import Scan, read_scan

READING, NORMAL = "reading", "normal"
"""Entry of a study's info for a reader's finding, and its value for a healthy person."""


class Study(NamedTuple):
    """A scan of the datastore, and whose it is (a name that is written nowhere)."""

    path: Path
    person: str


def normal_studies(datastore: Any) -> list[Study]:
    """List the studies of a `monailabel` Datastore that readers marked as normal, in order of ids.

    A person is told by the entry `subject` of the study's info; else by the PatientID that MONAI
    Label keeps of a DICOM series; else by `sub-LABEL` in the id; others are on their own.
    """
    infos = {name: datastore.get_image_info(name) for name in sorted(datastore.list_images())}
    normal = {name: info for name, info in infos.items() if info.get(READING) == NORMAL}
    return [Study(study_path(datastore, name), _person(name, normal[name])) for name in normal]


def study_path(datastore: Any, name: str) -> Path:
    """Path of a study where the datastore keeps it.

    Where a DICOM series is asked for the first time, MONAI Label's answer is a temporary copy,
    which would stay, and has no headers beside it; it is removed here.
    """
    first, kept = Path(datastore.get_image_uri(name)), Path(datastore.get_image_uri(name))
    if first != kept:
        first.unlink()
    return kept


def _person(name: str, info: dict[str, Any]) -> str:
    for key in ("subject", "PatientID"):
        stated = str(info.get(key, "")).strip()
        if stated not in ("", "UNK"):
            return f"{key}:{stated}"
    label = SUBJECT_LABEL.search(name)
    return f"subject:{label[1]}" if label else f"study:{name}"


def read_study(path: str | Path) -> Scan:
    """Read a scan of the datastore, with what its DICOM headers say if it was DICOM.

    MONAI Label keeps the series `UID/*.dcm` beside `UID.nii.gz`. The conversion drops every
    attribute and stacks slices whether or not one is missing, so both are looked at here, for the
    acceptance gate to judge.

    Raises:
        InputError: see `read_scan`; also those of `io.acquisition.series_facts`.
        ConfigError: for DICOM files, whose reader needs what MONAI Label's environment cannot have.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == ".dcm":
        raise ConfigError(
            "DICOM files are not read here: start the server on a DICOMweb service, or give NIfTI"
        )
    scan = read_scan(path)
    series = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii"))
    if not series.is_dir():
        return scan
    from pathology_screen.io.acquisition import series_facts  # pydicom is not always at hand

    return replace(scan, source={**scan.source, **series_facts(series)})
