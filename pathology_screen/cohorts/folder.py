"""A user's own scans, or a BIDS dataset, as a datalist: who is who, who is healthy, and who goes
where.

The scans stay where they are. Their paths are written relative to the datalist, so that it holds as
long as both keep their places towards each other, whatever the folder above them is called; on
another drive, absolute.
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pathology_screen.cohorts.preparation import begin, name_some, write_datalist
from pathology_screen.cohorts.splits import FRACTIONS, SECTIONS, draw_split, read_split, warn_of_few
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.files import sha256
from pathology_screen.io import discover, read_scan, safe_names
from pathology_screen.io.file import (
    File,
    files_below,
    is_dicom,
    is_nifti,
    is_zip,
    open_archive,
    opened,
)

SUBJECT_LABEL = re.compile(r"(?:^|[/_])sub-([A-Za-z0-9]+)")
NOT_SCANS = re.compile(r"derivatives|mask|label|(d|prob)?seg|segmentation|roi", re.IGNORECASE)
"""Folders of this name (or its plural), and files whose name ends in it, hold what was drawn or computed on scans."""
GROUP_COLUMNS = {"group", "diagnosis", "dx", "disease", "condition", "pathology"}
"""Columns of participants.tsv that may tell who is healthy, so that they are not overlooked."""
NOT_KNOWN = {"", "n/a"}
HEALTHY = "healthy"
DERIVED, WITH_CONTRAST = (
    "masks and derived files, not taken for scans",
    "T1w with contrast agent, left out",
)
DESCRIPTION = "T1w scans where they lie, split by subject."

Scans = dict[str, Path]
"""Name -> path; the name is the path relative to the folder, with "/"."""
Notes = dict[str, list[str]]


def prepare_folder(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    split: str | os.PathLike | None = None,
    group_column: str | None = None,
    healthy: Collection[str] = (),
    subject_pattern: str | None = None,
    scan_pattern: str | None = None,
    exclude: Iterable[str] = (),
    check: bool = True,
) -> Path:
    """Write a datalist of scans, split by subject into training, validation, calibration and test;
    return its path.

    Of a BIDS dataset the images `sub-*/[ses-*/]anat/*_T1w.nii[.gz]` are taken, without those with a
    contrast agent (`_ce-`); of any other folder what `io.discover` finds, without masks and
    derivatives: there, every scan has to be T1w, or `scan_pattern` has to choose.

    Who is who: by `subject_pattern` where it is given. Else scans with the same DICOM PatientID are
    of one subject, named after the path of the first; the PatientID is not written anywhere. Else
    by `sub-<label>` in the path; else by the first folder in it; a file directly in `source` is a
    subject of its own, named after the file. So names of folders and files stand in the datalist,
    as paths and as subjects.

    Volumes stay volumes, of which the standard plane is taken when they are loaded.

    Who is healthy: everyone, unless `group_column` names a column of `source/participants.tsv` and
    `healthy` its values that mean healthy. All others go to test, with the value as `pathology`.

    Args:
        source: the folder.
        output: folder of the datalist.
        fractions: of the healthy subjects for training, validation, calibration and test.
        seed: of the draw, see `draw_split`.
        split: CSV with the columns subject and section, in place of the draw.
        group_column: name of a column.
        healthy: values of that column.
        subject_pattern: regular expression, searched in the path relative to `source`; its first
            group is the subject.
        scan_pattern: regular expression; scans in whose path it is not found are passed over.
        exclude: subjects to leave out; the notes of the datalist name them.
        check: read every scan once, so that none is refused later, in training.

    Raises:
        ConfigError: if there is no scan; if a subject or its group cannot be told, or would be in
            two sections; if someone who is not healthy is put elsewhere than in test, or a section
            gets nobody; if a scan cannot be read (all are tried first, and named); or if the output
            was begun with other options.
        InputError: if `source` does not exist.
    """
    root, notes = Path(source), Notes()
    scans = _find(root, scan_pattern, notes)
    subjects = _without(_name_subjects(scans, subject_pattern), exclude, notes)
    everyone = sorted(set(subjects.values()))
    sick = _read_sick(root / "participants.tsv", everyone, group_column, healthy)
    if split:
        sections = read_split(split, everyone)
        _check_sick(sick, sections, Path(split).name)
    else:
        sections = draw_split(set(everyone) - sick.keys(), fractions, seed) | dict.fromkeys(
            sick, "test"
        )
    warn_of_few(list(sections.values()).count("calibration"))

    options = {
        "cohort": "folder",
        "fractions": None if split else list(fractions),
        "seed": None if split else seed,
        "split": sha256(Path(split)) if split else None,
        "group_column": group_column,
        "healthy": sorted(healthy),
        "subject_pattern": subject_pattern,
        "scan_pattern": scan_pattern,
    }
    folder = begin(output, options)
    failures = refused({relative: scans[relative] for relative in subjects}) if check else []
    if failures:
        raise ConfigError(
            f"{len(failures)} of {len(subjects)} scans cannot be read: {'; '.join(failures)}. Mend them, or leave them "
            "out by scan_pattern or exclude"
        )
    items: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for relative, subject in subjects.items():
        item = {"image": path_from(folder, scans[relative]), "subject": subject}
        if sections[subject] == "test" and (group_column or not split):
            item["pathology"] = sick.get(subject, HEALTHY)
        items[sections[subject]].append(item)
    return write_datalist(folder, items, DESCRIPTION, notes=notes)


def path_from(folder: Path, path: Path) -> str:
    """A path relative to a folder, with "/"; absolute where there is no way from one to the
    other."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()


def refused(scans: Scans) -> list[str]:
    """Read every scan; return the names of those that `read_scan` refuses, with the reason."""
    failures = []
    for name, path in tqdm(scans.items(), "Reading the scans", unit="scan"):
        try:
            read_scan(path)
        except InputError as error:
            failures.append(f"{name}: {error}")
    return failures


def _find(root: Path, pattern: str | None, notes: Notes) -> Scans:
    """The T1w scans of a folder, in order of paths."""
    nifti = [
        path
        for inside in ("anat", "ses-*/anat")
        for path in root.glob(f"sub-*/{inside}/*_T1w.nii*")
    ]
    bids = sorted(path for path in nifti if is_nifti(path) and not path.name.startswith("."))
    if (root / "dataset_description.json").is_file() and not bids:
        raise ConfigError(f"the BIDS dataset {root} holds no sub-*/[ses-*/]anat/*_T1w.nii.gz")
    found = bids or list(dict.fromkeys(scan.place for scan in discover(root).scans))
    left_out = defaultdict(set)
    scans = {}
    for path in found:
        relative = path.relative_to(root).as_posix() if path != root else path.absolute().name
        derived = None if bids else _derived(relative)
        if derived:
            left_out[DERIVED].add(derived)
        elif bids and "_ce-" in path.name:
            left_out[WITH_CONTRAST].add(relative)
        elif not pattern or _compiled(pattern).search(relative):
            scans[relative] = path
    notes |= {note: sorted(names) for note, names in left_out.items()}
    if not scans:
        raise ConfigError(
            f"{root} holds no scan" + (f" whose path matches {pattern!r}" if pattern else "")
        )
    return scans


def _derived(relative: str) -> str | None:
    """The folder or file, of those in a path, that by its name holds no scan."""
    *folders, name = relative.split("/")
    for depth, folder in enumerate(folders, 1):
        if NOT_SCANS.fullmatch(folder) or NOT_SCANS.fullmatch(folder.removesuffix("s")):
            return "/".join([*folders[:depth], ""])
    (stem,) = safe_names([name])
    return relative if NOT_SCANS.fullmatch(re.split(r"[_.-]", stem)[-1]) else None


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{pattern!r} is not a regular expression: {error}") from error


def _name_subjects(scans: Scans, pattern: str | None) -> dict[str, str]:
    """Relative path -> subject."""
    if pattern:
        return {relative: _matched(_compiled(pattern), relative) for relative in scans}
    names = dict(zip(scans, safe_names(list(scans))))
    first: dict[str, str] = {}  # PatientID -> subject
    subjects = {}
    for relative, path in scans.items():
        patient = _patient_id(path)
        subjects[relative] = (
            first.setdefault(patient, names[relative]) if patient else _subject_of(relative)
        )
    if len(set(subjects.values())) == 1 < len(subjects):
        raise ConfigError(
            f"all {len(subjects)} scans seem to be of one subject: say with subject_pattern which part of their paths "
            f"names the subject ({name_some(list(subjects))})"
        )
    return subjects


def _matched(pattern: re.Pattern[str], relative: str) -> str:
    match = pattern.search(relative)
    subject = match and match[min(1, pattern.groups)]
    if not subject:
        raise ConfigError(f"subject_pattern {pattern.pattern!r} finds no subject in {relative}")
    return subject


def _subject_of(relative: str) -> str:
    """Subject by the path alone."""
    label = SUBJECT_LABEL.search(relative)
    if label:
        return label[1]
    top, _, below = relative.partition("/")
    return top if below else safe_names([relative])[0]


def _patient_id(path: Path) -> str:
    """PatientID of a DICOM scan; empty where it is not stated, or the scan is not DICOM."""
    if is_nifti(path):
        return ""
    if is_zip(path):
        with open_archive(path) as files:
            return _first_patient_id(files)
    return _first_patient_id(files_below(path) if path.is_dir() else [path])


def _first_patient_id(files: Iterable[File]) -> str:
    image = next((file for file in files if is_dicom(file)), None)
    if image is None:
        return ""
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise ConfigError(
            "DICOM needs pydicom and highdicom: pip install pathology-screen[dicom]"
        ) from error
    with opened(image) as stream:
        return str(
            dcmread(stream, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID")
            or ""
        ).strip()


def _without(subjects: dict[str, str], exclude: Iterable[str], notes: Notes) -> dict[str, str]:
    """The subjects that are not left out."""
    unwanted = set(exclude)
    unknown = sorted(unwanted - set(subjects.values()))
    if unknown:
        raise ConfigError(f"{name_some(unknown)} cannot be left out: there is no such subject")
    notes["excluded by the user"] = sorted(unwanted)
    return {relative: subject for relative, subject in subjects.items() if subject not in unwanted}


def _read_sick(
    path: Path, subjects: Sequence[str], column: str | None, healthy: Collection[str]
) -> dict[str, str]:
    """Subject -> what participants.tsv says of those who are not healthy."""
    if column is None and healthy:
        raise ConfigError("the values that mean healthy need the group_column that they stand in")
    if column is None and not path.is_file():
        return {}
    columns, rows = _read_participants(path)
    if column is None:
        for name in columns:
            values = sorted({row[name] for row in rows.values()})
            if name.lower() in GROUP_COLUMNS and len(values) > 1:
                raise ConfigError(
                    f"{path.name} has a column {name} ({name_some(values)}): pass it as group_column, and as healthy "
                    "those of its values that mean healthy (all, if everyone is)"
                )
        return {}
    if column not in columns:
        raise ConfigError(
            f"{path.name} has no column {column}; it has {', '.join(columns) or 'none'}"
        )
    values = sorted({row[column] for row in rows.values()})
    strange = sorted(set(healthy) - set(values))
    if strange or not healthy:
        wrong = f"{name_some(strange)} is none of them" if strange else "say which mean healthy"
        raise ConfigError(
            f"the values in the column {column} of {path.name} are {', '.join(values)}: {wrong}"
        )
    unknown = [
        name for name in subjects if name not in rows or rows[name][column].lower() in NOT_KNOWN
    ]
    if unknown:
        raise ConfigError(
            f"{path.name} does not say whether {len(unknown)} subjects are healthy: {name_some(unknown)}. Complete it, "
            "or exclude them"
        )
    sick = {name: rows[name][column] for name in subjects if rows[name][column] not in healthy}
    if HEALTHY in sick.values():
        raise ConfigError(
            f'{path.name}: the value "{HEALTHY}" of the column {column} is not among those for healthy'
        )
    return sick


def _read_participants(path: Path) -> tuple[list[str], dict[str, Mapping[str, str]]]:
    """Columns of participants.tsv that tell something, and subject, without "sub-" -> row."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; its column tells who is healthy")
    rows: dict[str, Mapping[str, str]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", restval="")
        columns = list(reader.fieldnames or ())
        if "participant_id" not in columns:
            raise ConfigError(f"{path.name} has no column participant_id")
        for row in reader:
            subject = row["participant_id"].removeprefix("sub-")
            if subject in rows:
                raise ConfigError(f"{path.name} has several rows for {row['participant_id']}")
            rows[subject] = row
    return [name for name in columns if name != "participant_id"], rows


def _check_sick(sick: Mapping[str, str], sections: Mapping[str, str], table: str) -> None:
    for subject, group in sick.items():
        if sections[subject] != "test":
            raise ConfigError(
                f"{table} puts {subject} in {sections[subject]}, but participants.tsv says {group}: only healthy "
                "subjects may be there"
            )
