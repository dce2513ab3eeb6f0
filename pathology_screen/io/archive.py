"""The files inside a .zip, read in place: nothing is written to disk, and an archive that looks harmful is refused."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from pathology_screen.errors import InputError
from pathology_screen.io.file import File, parsing

MAX_MEMBERS = 50_000
MAX_BYTES = 4 * 2**30
"""Most bytes that the members may declare in all; `zipfile` never reads more of a member than it declares."""
MAX_RATIO = 200
"""Greatest ratio of unpacked to packed bytes, for an archive that unpacks to more than `RATIO_APPLIES_ABOVE` bytes."""
RATIO_APPLIES_ABOVE = 64 * 2**20


@contextmanager
def open_archive(path: Path) -> Iterator[list[File]]:
    """Give the files of a .zip at any depth, without hidden ones; they can be read as long as the context lasts.

    Raises:
        InputError: "unreadable" (damaged or encrypted), "unsafe_archive" (a member outside the archive's own folder, a
            link, too many members, or more data than is plausible).
    """
    with parsing():
        archive = zipfile.ZipFile(path)
    with archive:
        members = archive.infolist()
        _check_members(members, path)
        names = [info.filename for info in members if not info.is_dir() and not _is_hidden(info.filename)]
        yield [zipfile.Path(archive, name) for name in sorted(names)]


def _check_members(members: list[zipfile.ZipInfo], path: Path) -> None:
    hint = "Unpack the archive yourself and pass the folder, if you trust where it comes from"
    if len(members) > MAX_MEMBERS:
        raise InputError("unsafe_archive", f"{len(members)} members; at most {MAX_MEMBERS} are read", hint)
    unpacked = sum(info.file_size for info in members)
    if unpacked > MAX_BYTES:
        raise InputError("unsafe_archive", f"{unpacked} bytes unpacked; at most {MAX_BYTES} are read", hint)
    if unpacked > max(RATIO_APPLIES_ABOVE, MAX_RATIO * path.stat().st_size):
        raise InputError("unsafe_archive", f"it unpacks to more than {MAX_RATIO} times its size", hint)
    if any(_leaves_archive(info.filename) for info in members):
        raise InputError("unsafe_archive", "a member's path is absolute or leads out of the archive")
    if any(stat.S_ISLNK(info.external_attr >> 16) for info in members):
        raise InputError("unsafe_archive", "a member is a symbolic link")
    if len({info.filename for info in members}) < len(members):
        raise InputError("unsafe_archive", "two members have the same path")
    if any(info.flag_bits & 1 for info in members):
        raise InputError("unreadable", "the archive is encrypted")


def _leaves_archive(name: str) -> bool:
    windows = PureWindowsPath(name)  # understands both kinds of slash
    return bool(windows.drive or windows.root) or ".." in windows.parts


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
