"""What the makers of cohorts share: tables, folders, splits, and scans written or checked."""

import json
import math
import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from tqdm import tqdm

from pathology_screen.bundles import carried
from pathology_screen.calibration import fewest_people
from pathology_screen.cohorts.datalist import SECTIONS
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.files import replacing, text_sha256, write_text
from pathology_screen.io import read_scan

FRACTIONS = (0.6, 0.05, 0.25, 0.1)
"""Share of the healthy subjects in each of `SECTIONS`; of a hundred, 25 are for calibration."""


def listed(name: str) -> list[dict[str, str]]:
    """Rows of a table in `data_lists/`, of the checkout or the copy that the wheel carries."""
    return read_table(carried("data_lists") / name)


def read_table(path: Path, columns: Iterable[str] = (), separator: str = ",") -> list[dict]:
    """Rows of a CSV file: column -> text; ConfigError if there is none, or it lacks a column."""
    if not path.is_file():
        raise ConfigError(f"the table {path} does not exist")
    try:
        table = pd.read_csv(
            path, sep=separator, dtype=str, na_filter=False, index_col=False, encoding="utf-8-sig"
        )
    except ValueError as error:
        raise ConfigError(f"{path.name} cannot be read as a table: {error}") from error
    missing = sorted(set(columns) - set(table))
    if missing:
        raise ConfigError(f"the table {path.name} has no column {', '.join(missing)}")
    return table.to_dict("records")


def name_some(names: Iterable[str]) -> str:
    """The first five names of many, for a message."""
    names = list(names)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def begin(output: str | os.PathLike, options: Mapping[str, Any]) -> Path:
    """Make the folder of a cohort, or go on in one of the same options (JSON), which are kept
    in `preparation.json`; ConfigError where they were others."""
    kept = Path(output) / "preparation.json"
    text = json.dumps(dict(options), indent=1, sort_keys=True) + "\n"
    if kept.is_file() and kept.read_text("utf-8") != text:
        raise ConfigError(
            f"{output} holds a cohort that was prepared with other options (see {kept.name} there):"
            " name another folder"
        )
    write_text(kept, text)
    return Path(output)


def save_image(voxels: np.ndarray, affine: np.ndarray, path: Path, space: str = "scanner") -> None:
    """Write an image in mm whose qform and sform are both the affine (voxel index -> RAS+ mm), to a
    space as NIfTI calls it, whole or not at all."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=space)
    image.set_sform(image.affine, code=space)
    with replacing(path) as temporary:
        nib.save(image, temporary)


def save_scan(voxels: np.ndarray, affine: np.ndarray, path: Path, space: str) -> None:
    """Write a scan (I, J, K), or one slice (I, J), as `save_image` does, unless it is there or
    `read_scan` refuses it, whose InputError names the file."""
    if path.is_file():
        return
    with replacing(path) as temporary:
        save_image(voxels.reshape((*voxels.shape, 1)[:3]), affine, temporary, space)
        try:
            read_scan(temporary, axial_slice=True)
        except InputError as error:
            raise InputError(error.code, f"{path.name}: {error.detail}", error.hint) from None


def check_scans(scans: Mapping[str, Path]) -> None:
    """Read every scan, by its name; ConfigError names all that `read_scan` refuses."""
    failures = []
    for name, path in tqdm(scans.items(), "Reading the scans", unit="scan"):
        try:
            read_scan(path)
        except InputError as error:
            failures.append(f"{name}: {error}")
    check_failures(failures, len(scans))


def check_failures(failures: Sequence[str], total: int) -> None:
    """Raise a ConfigError that names all scans that failed, if any did."""
    if failures:
        raise ConfigError(
            f"{len(failures)} of {total} scans cannot be read or used: {'; '.join(failures)}. "
            "What is done is kept. Mend these files, or exclude their subjects"
        )


def check_excluded(exclude: Iterable[str], subjects: Collection[str]) -> list[str]:
    """Subjects to leave out, in order of names; ConfigError if one of them does not exist."""
    unknown = sorted(set(exclude) - set(subjects))
    if unknown:
        raise ConfigError(f"{name_some(unknown)} cannot be left out: there is no such subject")
    return sorted(set(exclude))


def path_from(folder: Path, path: str | Path) -> str:
    """A path relative to a folder, with "/"; absolute where it lies on another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return Path(path).absolute().as_posix()


def draw_split(
    subjects: Iterable[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> dict[str, str]:
    """Draw a section for every subject, by fractions for each of `SECTIONS` that add up to 1,
    rounded by largest remainder; ConfigError if they do not, or a section would hold none.

    The subjects are dealt out in the order of a hash of seed and name. So the result depends on the
    set of subjects and the seed alone, not on their order, the machine or the version of a library.
    """
    complete = len(fractions) == len(SECTIONS) and math.isclose(sum(fractions), 1, abs_tol=1e-6)
    if not complete or min(fractions) < 0:
        wanted = f"the fractions for {', '.join(SECTIONS)} are four numbers that add up to 1"
        raise ConfigError(f"{wanted}, not {fractions}")
    order = sorted(set(subjects), key=lambda name: text_sha256(f"{seed}/{name}"))
    shares = [len(order) * fraction for fraction in fractions]
    counts = [math.floor(share + 1e-9) for share in shares]
    remainders = [round(share - count, 9) for share, count in zip(shares, counts)]
    for i in sorted(range(len(SECTIONS)), key=lambda i: -remainders[i])[: len(order) - sum(counts)]:
        counts[i] += 1
    split: dict[str, str] = {}
    for section, fraction, count in zip(SECTIONS, fractions, counts):
        if fraction and not count:
            few = f"{fraction:g} of {len(order)} subjects leaves none for {section}"
            raise ConfigError(f"{few}: add subjects, or raise its fraction")
        split |= dict.fromkeys(order[len(split) : len(split) + count], section)
    return split


def read_split(path: Path, subjects: Iterable[str]) -> dict[str, str]:
    """Read the section of every subject from a CSV file with the columns subject and section;
    ConfigError if a subject has two or none, or one is named that is not there."""
    name, wanted, split = path.name, set(subjects), dict[str, str]()
    for row in read_table(path, ("subject", "section")):
        subject, section = row["subject"].strip(), row["section"].strip()
        if section not in SECTIONS:
            there = ", ".join(SECTIONS)
            raise ConfigError(f'{name} puts {subject} in "{section}"; the sections are {there}')
        if split.setdefault(subject, section) != section:
            raise ConfigError(f"{name} puts {subject} in both {split[subject]} and {section}")
    for what, names in (
        ("does not name", wanted - split.keys()),
        ("names, but there is no scan of,", split.keys() - wanted),
    ):
        if names:
            raise ConfigError(f"{name} {what} {len(names)} subjects: {name_some(sorted(names))}")
    return split


def warn_of_few(split: Mapping[str, str]) -> None:
    """Warn where a calibration section is so small that it allows no bound of 5 %."""
    count, fewest = list(split.values()).count("calibration"), fewest_people(0.05)
    if 0 < count < fewest:
        warnings.warn(
            f"with {count} calibration subjects no statement at the level of 5 % about a new "
            f"subject is possible; it takes at least {fewest}",
            stacklevel=2,
        )
