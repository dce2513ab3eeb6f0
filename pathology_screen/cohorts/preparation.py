"""What the makers of cohorts share: tables, folders, and scans written or checked."""

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from tqdm import tqdm

from pathology_screen.bundles import carried
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.files import replacing, write_text
from pathology_screen.io import read_scan


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


def nifti_image(voxels: np.ndarray, affine: np.ndarray, space: str) -> nib.Nifti1Image:
    """An image in mm whose qform and sform are both the affine, to a space as NIfTI calls it."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=space)
    image.set_sform(image.affine, code=space)
    return image


def save_image(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write an image in scanner space as `nifti_image` makes it, whole or not at all."""
    with replacing(path) as temporary:
        nib.save(nifti_image(voxels, affine, "scanner"), temporary)


def save_scan(
    path: Path, make: Callable[[], tuple[np.ndarray, np.ndarray]], *, space: str = "scanner"
) -> Path:
    """Write a scan as `*.nii.gz` unless it is there, whole and accepted by `read_scan`, whose
    InputError names the file; return its path.

    Args:
        make: gives the voxels, (I, J, K) or one slice (I, J), and the affine (4, 4), voxel index ->
            RAS+ mm.
        space: "scanner", "mni", or "aligned", where the position is not known.
    """
    if not path.is_file():
        voxels, affine = make()
        image = nifti_image(voxels.reshape((*voxels.shape, 1)[:3]), affine, space)
        with replacing(path) as temporary:
            nib.save(image, temporary)
            try:
                read_scan(temporary, axial_slice=True)
            except InputError as error:
                raise InputError(error.code, f"{path.name}: {error.detail}", error.hint) from None
    return path


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
