"""Studies of a MONAI Label datastore: how they are read, and which of them readers marked as
normal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pathology_screen.cohorts.folder import SUBJECT_LABEL
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.io import Scan, read_scan
from pathology_screen.io.stack import check_even, check_parallel

READING, NORMAL = "reading", "normal"
"""Entry of a study's info with which a reader says what it shows, and its value for a healthy person."""
UNKNOWN = ("", "UNK")
"""What stands for a PatientID that is not stated."""


class Study(NamedTuple):
    """A scan of the datastore, and whose it is (a name that is used for telling people apart, and
    written nowhere)."""

    path: Path
    person: str


def normal_studies(datastore: Any) -> list[Study]:
    """List the studies that readers marked as normal, in order of their ids.

    A person is told by the entry `subject` of the study's info; else by the PatientID that MONAI
    Label keeps of a DICOM series; else by `sub-LABEL` in the id; any other study is a person of its
    own.

    Args:
        datastore: `monailabel.interfaces.datastore.Datastore`.
    """
    infos = {name: datastore.get_image_info(name) for name in sorted(datastore.list_images())}
    return [
        Study(study_path(datastore, name), _person(name, info))
        for name, info in infos.items()
        if info.get(READING) == NORMAL
    ]


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
        if str(info.get(key, "")).strip() not in UNKNOWN:
            return f"{key}:{str(info[key]).strip()}"
    label = SUBJECT_LABEL.search(name)
    return f"subject:{label[1]}" if label else f"study:{name}"


def read_study(path: str | Path) -> Scan:
    """Read a scan of the datastore, with what its DICOM headers say where MONAI Label converted it
    from DICOM.

    MONAI Label keeps the series `UID/*.dcm` beside `UID.nii.gz`. The conversion drops every
    attribute and stacks slices whether or not one is missing, so both are looked at here, for the
    acceptance gate to judge.

    Raises:
        InputError: see `read_scan`; also those of `io.stack.check_parallel` and `check_even`.
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
    from pydicom import dcmread

    from pathology_screen.io.acquisition import acquisition_facts

    files = sorted(file for file in series.iterdir() if file.is_file())
    frames = [frame for file in files for frame in _frames(dcmread(file, stop_before_pixels=True))]
    _check_stack(frames)
    return replace(scan, source={**scan.source, **acquisition_facts(frames[0])})


def _frames(header: Any) -> list[list[Any]]:
    """The data sets that describe each frame: the header, and of a multi-frame object its
    functional groups."""

    def items(groups: Any) -> list[Any]:
        return [element.value[0] for element in groups if element.VR == "SQ" and element.value]

    shared = [
        item
        for groups in header.get("SharedFunctionalGroupsSequence", [])
        for item in items(groups)
    ]
    own = header.get("PerFrameFunctionalGroupsSequence", [[]])
    return [[header, *items(groups), *shared] for groups in own]


def _check_stack(frames: Sequence[Sequence[Any]]) -> None:
    positions, orientations = (
        [next((part[keyword].value for part in frame if keyword in part), None) for frame in frames]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient")
    )
    if None in positions or None in orientations:
        raise InputError("missing_geometry", "not every slice states where it lies")
    check_parallel(np.array(orientations, float))
    check_even(np.array(positions, float), np.array(orientations[0], float))
