"""Find the scans in a folder, and the files that may belong to one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathology_screen.errors import InputError
from pathology_screen.io.file import File, opened

NIFTI_SUFFIXES = (".nii", ".nii.gz")
BARE_STARTS = {b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\5\0", b"\0\x08\0\0", b"\0\x08\0\5"}
"""First bytes of DICOM data sets that lack the preamble; the reader refuses them."""
LONGEST_NAME = 120


def is_nifti(file: File) -> bool:
    """Tell by the name whether a file is a NIfTI file."""
    return file.name.lower().endswith(NIFTI_SUFFIXES)


def is_zip(file: File) -> bool:
    """Tell by the name whether a file is a .zip archive."""
    return file.name.lower().endswith(".zip")


def is_dicom(file: File) -> bool:
    """Tell by the content whether a file is DICOM, with or without preamble; a DICOMDIR, which lists others, is not."""
    if file.name.upper() == "DICOMDIR":
        return False
    with opened(file) as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or start[:4] in BARE_STARTS


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Like `os.walk`, in order of names, with hidden entries left out and links to folders not followed."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        yield Path(root), folders, [file for file in files if file.is_file()]


def files_below(folder: Path) -> list[File]:
    """Every file in a folder, at any depth."""
    return [file for _, _, files in walk(folder) for file in files]


def find_scans(root: str | Path) -> list[dict]:
    """List the scans at or below a path as a MONAI datalist.

    A scan is a NIfTI file, a .zip archive (not opened here), or a folder that holds DICOM files (with everything below
    it: one item). Hidden files and all others are passed over; links to folders are not followed.

    Returns:
        `[{"image": path, "name": name}, ...]` in order of paths; a name is the path relative to `root` without its
        suffix, written with letters, digits, ".", "-" and "_" alone, and unique even where case is not told apart.

    Raises:
        InputError: "not_found", or "empty" where there is no scan.
    """
    root = Path(root)
    if not root.exists():
        raise InputError("not_found", root.name)
    paths = list(_scan_paths(root)) if root.is_dir() else [root]
    if not paths:
        raise InputError("empty", root.name)
    paths = sorted(paths)
    relative = [path.relative_to(root).as_posix() if path != root else root.absolute().name for path in paths]
    return [{"image": str(path), "name": name} for path, name in zip(paths, safe_names(relative))]


def safe_names(paths: Sequence[str]) -> list[str]:
    """Turn relative paths into names for files.

    Args:
        paths: with "/" between their parts.

    Returns:
        For each its path without suffix, written with letters, digits, ".", "-" and "_" alone, cut at 120 characters
        (with a hash at the end), and unique even where case is not told apart (with a number at the end).
    """
    names: dict[str, str] = {}
    for path in paths:
        stem = name = _safe_name(path)
        count = 1
        while name.casefold() in names:
            count += 1
            name = f"{stem}-{count}"
        names[name.casefold()] = name
    return list(names.values())


def _scan_paths(root: Path) -> Iterator[Path]:
    for folder, folders, files in walk(root):
        single = [file for file in files if is_nifti(file) or is_zip(file)]
        yield from single
        if any(_may_be_dicom(file) for file in files if file not in single):
            folders.clear()  # read_scan reads a folder with everything below it
            yield folder


def _may_be_dicom(file: Path) -> bool:
    """Count a file that cannot be read as DICOM, so that the reader refuses it and nothing is passed over unseen."""
    try:
        return is_dicom(file)
    except InputError:
        return True


def _safe_name(relative: str) -> str:
    for suffix in (*reversed(NIFTI_SUFFIXES), ".zip", ".dcm"):
        if relative.lower().endswith(suffix):
            relative = relative[: -len(suffix)]
            break
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", relative).strip(".") or "scan"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(relative.encode()).hexdigest()[:8]}"
    return name
