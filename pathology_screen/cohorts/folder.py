"""A user's own scans, or a BIDS dataset, as a datalist: who is healthy, who goes where.

The scans stay where they are. Their paths are written relative to the datalist, so that it holds as
long as both keep their places towards each other; on another drive, absolute.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pathology_screen.cohorts import preparation
from pathology_screen.cohorts.datalist import SECTIONS, write_datalist
from pathology_screen.cohorts.preparation import FRACTIONS, name_some
from pathology_screen.errors import ConfigError
from pathology_screen.files import sha256
from pathology_screen.io import discover, safe_names
from pathology_screen.io.file import input_files, is_dicom, is_nifti, opened
from pathology_screen.io.find import t1w_images

SUBJECT_LABEL = re.compile(r"(?:^|[/_])sub-([A-Za-z0-9]+)")
NOT_SCANS = re.compile(r"derivatives|mask|label|(d|prob)?seg|segmentation|roi", re.IGNORECASE)
"""How folders (or their plural) and files end that hold no scans but what was made of them."""
GROUP_COLUMNS = {"group", "diagnosis", "dx", "disease", "condition", "pathology"}
"""Columns of participants.tsv that may tell who is healthy, so that they are not overlooked."""
HEALTHY = "healthy"
DESCRIPTION = "T1w scans where they lie, split by subject."


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
    """Write a datalist of scans, split by subject; return its path.

    Of a BIDS dataset the images `sub-*/[ses-*/]anat/*_T1w.nii[.gz]` are taken, without those with a
    contrast agent (`_ce-`); of any other folder what `io.discover` finds, without masks and
    derivatives: there, every scan has to be T1w, or the regular expression `scan_pattern` has to
    choose. Volumes stay volumes, of which the standard plane is taken when they are loaded.

    A subject is named by the first group of the regular expression `subject_pattern` in the path
    relative to `source`. Without one, scans with the same DICOM PatientID, which is not written
    anywhere, are of one subject, named after the path of the first; else it is `sub-<label>` in the
    path, else the first folder in it, else the name of the file.

    Everyone is healthy, unless `group_column` names a column of `source/participants.tsv` and
    `healthy` its values that mean healthy. All others go to test, with the value as `pathology`.
    The healthy are split by `fractions` and `seed`, see `draw_split`, or `split` says it for all: a
    CSV of subject and section. The notes name the excluded subjects. With `check` every scan is
    read once, so that none is refused later, in training.

    Raises:
        ConfigError: if there is no scan; if a subject or its group cannot be told, or would be in
            two sections; if someone who is not healthy is put elsewhere than in test, or a section
            gets nobody; if scans cannot be read; or if the output was begun with other options.
        InputError: if `source` does not exist.
    """
    root, notes = Path(source), defaultdict[str, list[str]](list)
    scans = _find(root, scan_pattern, notes)
    subjects = _name_subjects(scans, subject_pattern)
    excluded = preparation.check_excluded(exclude, subjects.values())
    notes["excluded by the user"] = excluded
    subjects = {name: subject for name, subject in subjects.items() if subject not in excluded}
    everyone = sorted(set(subjects.values()))
    sick = _read_sick(root / "participants.tsv", everyone, group_column, healthy)
    if split:
        sections = preparation.read_split(Path(split), everyone)
    else:
        drawn = preparation.draw_split(set(everyone) - sick.keys(), fractions, seed)
        sections = drawn | dict.fromkeys(sick, "test")
    for subject, group in sick.items():
        if sections[subject] != "test":
            raise ConfigError(
                f"{Path(split or '').name} puts {subject} in {sections[subject]}, but "
                f"participants.tsv says {group}: only healthy subjects may be there"
            )
    preparation.warn_of_few(sections)

    options = {
        "cohort": "folder",
        "group_column": group_column,
        "healthy": sorted(healthy),
        "subject_pattern": subject_pattern,
        "scan_pattern": scan_pattern,
        "split": sha256(Path(split)) if split else None,
        "fractions": None if split else list(fractions),
        "seed": None if split else seed,
    }
    folder = preparation.begin(output, options)
    if check:
        preparation.check_scans({name: scans[name] for name in subjects})
    items: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for relative, subject in subjects.items():
        item = {"image": preparation.path_from(folder, scans[relative]), "subject": subject}
        if sections[subject] == "test" and (group_column or not split):
            item["pathology"] = sick.get(subject, HEALTHY)
        items[sections[subject]].append(item)
    return write_datalist(folder, items, DESCRIPTION, notes=notes)


def _find(root: Path, pattern: str | None, notes: dict[str, list[str]]) -> dict[str, Path]:
    """The T1w scans of a folder, in order of paths: path relative to it, with "/" -> path."""
    bids = t1w_images(root)
    if (root / "dataset_description.json").is_file() and not bids:
        raise ConfigError(f"the BIDS dataset {root} holds no sub-*/[ses-*/]anat/*_T1w.nii.gz")
    left_out, scans = defaultdict(set), {}
    for path in bids or [scan.place for scan in discover(root).scans]:
        relative = path.relative_to(root).as_posix() if path != root else path.absolute().name
        derived = None if bids else _derived(relative)
        if derived:
            left_out["masks and derived files, not taken for scans"].add(derived)
        elif bids and "_ce-" in path.name:
            left_out["T1w with contrast agent, left out"].add(relative)
        elif _searched(pattern or "", relative):
            scans[relative] = path
    notes |= {note: sorted(names) for note, names in left_out.items()}
    if not scans:
        choice = f" whose path matches {pattern!r}" if pattern else ""
        raise ConfigError(f"{root} holds no scan{choice}")
    return scans


def _derived(relative: str) -> str | None:
    """The folder or file, of those in a path, that by its name holds no scan."""
    *folders, name = relative.split("/")
    for depth, folder in enumerate(folders, 1):
        if NOT_SCANS.fullmatch(folder) or NOT_SCANS.fullmatch(folder.removesuffix("s")):
            return "/".join([*folders[:depth], ""])
    (stem,) = safe_names([name])
    return relative if NOT_SCANS.fullmatch(re.split(r"[_.-]", stem)[-1]) else None


def _searched(pattern: str, relative: str) -> re.Match[str] | None:
    try:
        return re.search(pattern, relative)
    except re.error as error:
        raise ConfigError(f"{pattern!r} is not a regular expression: {error}") from error


def _name_subjects(scans: dict[str, Path], pattern: str | None) -> dict[str, str]:
    """Relative path -> subject."""
    names = dict(zip(scans, safe_names(list(scans))))
    first: dict[str, str] = {}  # PatientID -> subject
    subjects = {}
    for relative, path in scans.items():
        if pattern:
            match = _searched(pattern, relative)
            subject = match and match[min(1, match.re.groups)]
            if not subject:
                raise ConfigError(f"subject_pattern {pattern!r} finds no subject in {relative}")
        elif patient := _patient_id(path):
            subject = first.setdefault(patient, names[relative])
        else:
            label = SUBJECT_LABEL.search(relative)
            top, _, below = relative.partition("/")
            subject = label[1] if label else top if below else safe_names([relative])[0]
        subjects[relative] = subject
    if not pattern and len(set(subjects.values())) == 1 < len(subjects):
        raise ConfigError(
            f"all {len(subjects)} scans seem to be of one subject: say with subject_pattern which "
            f"part of their paths names the subject ({name_some(subjects)})"
        )
    return subjects


def _patient_id(path: Path) -> str:
    """PatientID of a DICOM scan; empty where it is not stated, or the scan is not DICOM."""
    if is_nifti(path):
        return ""
    with input_files(path) as files:
        image = next(filter(is_dicom, files), None)
        if image is None:
            return ""
        from pydicom import dcmread  # which finding the scan took already

        with opened(image) as stream:
            header = dcmread(stream, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(header.get("PatientID") or "").strip()


def _read_sick(
    path: Path, subjects: Sequence[str], column: str | None, healthy: Collection[str]
) -> dict[str, str]:
    """Subject -> what participants.tsv says of those who are not healthy."""
    if column is None and healthy:
        raise ConfigError("the values that mean healthy need the group_column that they stand in")
    if column is None and not path.is_file():
        return {}
    rows: dict[str, dict[str, str]] = {}
    for row in preparation.read_table(path, ["participant_id"], "\t"):
        subject = row.pop("participant_id").removeprefix("sub-")
        if rows.setdefault(subject, row) is not row:
            raise ConfigError(f"{path.name} has several rows for sub-{subject}")
    values = {name: sorted(set(of)) for name, of in pd.DataFrame(rows.values()).items()}
    if column is None:
        for name, there in values.items():
            if name.lower() in GROUP_COLUMNS and len(there) > 1:
                raise ConfigError(
                    f"{path.name} has a column {name} ({name_some(there)}): pass it as group_column"
                    ", and as healthy those of its values that mean healthy (all, if everyone is)"
                )
        return {}
    if column not in values:
        columns = ", ".join(values) or "none"
        raise ConfigError(f"{path.name} has no column {column}; it has {columns}")
    strange = sorted(set(healthy) - set(values[column]))
    if strange or not healthy:
        wrong = f"{name_some(strange)} is none of them" if strange else "say which mean healthy"
        all_ = ", ".join(values[column])
        raise ConfigError(f"the values in the column {column} of {path.name} are {all_}: {wrong}")
    groups = {name: rows[name][column] if name in rows else "" for name in subjects}
    unknown = [name for name, group in groups.items() if group.lower() in ("", "n/a")]
    if unknown:
        raise ConfigError(
            f"{path.name} does not say whether {len(unknown)} subjects are healthy: "
            f"{name_some(unknown)}. Complete it, or exclude them"
        )
    sick = {name: group for name, group in groups.items() if group not in healthy}
    if HEALTHY in sick.values():
        wrong = f'the value "{HEALTHY}" of the column {column} is not among those for healthy'
        raise ConfigError(f"{path.name}: {wrong}")
    return sick
