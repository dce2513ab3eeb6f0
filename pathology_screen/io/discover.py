"""Which files lie below a path, what kinds they are, and names made of their paths."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pathology_screen.errors import InputError
from pathology_screen.io.file import File, opened, parsing

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
    """Tell by the content whether a file is DICOM, with or without preamble; a DICOMDIR, which
    lists others, is not."""
    if file.name.upper() == "DICOMDIR":
        return False
    with opened(file) as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or start[:4] in BARE_STARTS


def check_path(path: Path) -> None:
    """Refuse a path at which there is neither a file nor a folder; reading a pipe would never end.

    Raises:
        InputError: "not_found", "unsupported_format", or "unreadable" where one may not look.
    """
    with parsing():
        if not path.exists():
            raise InputError("not_found")
        if not (path.is_file() or path.is_dir()):
            raise InputError("unsupported_format", "it is neither a file nor a folder")


def walk(
    folder: Path, closed: Callable[[Path], None]
) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Like `os.walk`, in order of names, with hidden entries left out and links to folders not
    followed.

    Files that one may not look at, and links that lead nowhere, are given too: opening them will
    say so. `closed` is called with every folder that cannot be listed or entered.
    """
    for root, folders, names in os.walk(folder, onerror=lambda error: closed(Path(error.filename))):
        if _is_barred(root, (*folders, *names)):
            folders.clear()
            closed(Path(root))
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        yield Path(root), folders, [file for file in files if _may_be_file(file)]


def files_below(folder: Path) -> list[File]:
    """Every file in a folder, at any depth; "unreadable" where a folder cannot be listed."""

    def refuse(_: Path) -> None:
        raise InputError("unreadable", "a folder cannot be listed")

    return [file for _, _, files in walk(folder, refuse) for file in files]


def safe_names(paths: Sequence[str]) -> list[str]:
    """Turn relative paths into names for files.

    Args:
        paths: with "/" between their parts.

    Returns:
        For each its path without suffix, written with letters, digits, ".", "-" and "_" alone, cut
        at 120 characters (with a hash at the end), and unique even where case is not told apart
        (with a number at the end).
    """
    return _distinct(map(_safe_name, paths), "-")


def bids_labels(names: Sequence[str]) -> list[str]:
    """Turn names into BIDS labels.

    Returns:
        For each the ASCII letters and digits of what follows "sub-", if it begins so ("scan" where
        there are none), and unique even where case is not told apart (with "x" and a number at the
        end).
    """
    letters = (re.sub(r"[^A-Za-z0-9]", "", name.removeprefix("sub-")) for name in names)
    return _distinct((label or "scan" for label in letters), "x")


def _distinct(names: Iterable[str], mark: str) -> list[str]:
    """Names with a mark and a number after those that occurred before."""
    distinct: dict[str, str] = {}
    for stem in names:
        name, count = stem, 1
        while name.casefold() in distinct:
            count += 1
            name = f"{stem}{mark}{count}"
        distinct[name.casefold()] = name
    return list(distinct.values())


def _is_barred(folder: str, names: Sequence[str]) -> bool:
    """Tell a folder that may be listed and not entered."""
    try:
        Path(folder, *names[:1]).lstat()
    except PermissionError:
        return True
    except OSError:  # it vanished meanwhile
        pass
    return False


def _may_be_file(path: Path) -> bool:
    try:
        return path.is_file() or leads_nowhere(path)
    except OSError:
        return True


def leads_nowhere(path: Path) -> bool:
    """Tell a link whose target is absent."""
    return path.is_symlink() and not path.exists()


def _safe_name(relative: str) -> str:
    for suffix in (*reversed(NIFTI_SUFFIXES), ".zip", ".dcm"):
        if relative.lower().endswith(suffix):
            relative = relative[: -len(suffix)]
            break
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", relative).strip(".") or "scan"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(os.fsencode(relative)).hexdigest()[:8]}"
    return name
