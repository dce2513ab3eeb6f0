"""The files inside a .zip, read in place: nothing is written to disk, and an archive that looks
harmful is refused."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from pathology_screen.errors import InputError
from pathology_screen.io.file import File, parsing

MAX_MEMBERS = 50_000
MAX_BYTES = 4 * 2**30
"""Most bytes that the members may declare in all; `zipfile` never reads more of a member than it declares."""
MAX_RATIO = 200
"""Greatest ratio of unpacked to packed bytes, for what unpacks to more than `RATIO_APPLIES_ABOVE` bytes."""
RATIO_APPLIES_ABOVE = 64 * 2**20
MAX_PATH = 1024
"""Most characters of a member's path."""
MAX_DEPTH = 64
"""Most parts of a member's path."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How members may be packed; Python unpacks a block of bzip2 or LZMA whole, however large it is."""


@dataclass(frozen=True)
class Member:
    """A file in an archive: what `io.file.File` asks of a file.

    `zipfile.Path` would list every folder above every member.
    """

    archive: zipfile.ZipFile
    path: str

    @property
    def name(self) -> str:
        """Last part of its path."""
        return PurePosixPath(self.path).name

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open it for reading bytes."""
        return self.archive.open(self.path)

    def __str__(self) -> str:
        return self.path


@contextmanager
def open_archive(path: Path) -> Iterator[list[File]]:
    """Give the files of a .zip at any depth, without hidden ones; they can be read as long as the
    context lasts.

    Raises:
        InputError: "unreadable" (damaged or encrypted), "unsafe_archive" (a member outside the
            archive's own folder, a link, too many members, too long or deep a path, another packing
            than deflation, or more data than is plausible).
    """
    with parsing():
        archive = zipfile.ZipFile(path)
    with archive:
        members = archive.infolist()
        _check_size(members, path)
        for info in members:
            _check_member(info)
        if len({info.filename for info in members}) < len(members):
            raise InputError("unsafe_archive", "two members have the same path")
        names = [
            info.filename for info in members if not info.is_dir() and not _is_hidden(info.filename)
        ]
        yield [Member(archive, name) for name in sorted(names)]


def check_ratio(unpacked: int, packed: int) -> None:
    """Refuse what unpacks to implausibly much; "unsafe_archive"."""
    if unpacked > max(RATIO_APPLIES_ABOVE, MAX_RATIO * packed):
        hint = "Unpack it yourself and pass what it holds, if you trust where it comes from"
        raise InputError(
            "unsafe_archive", f"it unpacks to more than {MAX_RATIO} times its size", hint
        )


def _check_size(members: list[zipfile.ZipInfo], path: Path) -> None:
    hint = "Unpack the archive yourself and pass the folder, if you trust where it comes from"
    if len(members) > MAX_MEMBERS:
        raise InputError(
            "unsafe_archive", f"{len(members)} members; at most {MAX_MEMBERS} are read", hint
        )
    unpacked = sum(info.file_size for info in members)
    if unpacked > MAX_BYTES:
        raise InputError(
            "unsafe_archive", f"{unpacked} bytes unpacked; at most {MAX_BYTES} are read", hint
        )
    check_ratio(unpacked, path.stat().st_size)


def _check_member(info: zipfile.ZipInfo) -> None:
    if _leaves_archive(info.filename):
        raise InputError(
            "unsafe_archive", "a member's path is absolute or leads out of the archive"
        )
    if len(info.filename) > MAX_PATH or info.filename.count("/") >= MAX_DEPTH:
        limit = f"at most {MAX_PATH} characters and {MAX_DEPTH} parts are accepted"
        raise InputError("unsafe_archive", f"a member's path is too long or too deep; {limit}")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError("unsafe_archive", "a member is a symbolic link")
    if info.compress_type not in METHODS:
        hint = "Pack the archive anew with the usual method (deflate)"
        raise InputError(
            "unsafe_archive", f"a member is packed by method {info.compress_type}", hint
        )
    if info.flag_bits & 1:
        raise InputError("unreadable", "the archive is encrypted")


def _leaves_archive(name: str) -> bool:
    windows = PureWindowsPath(name[: MAX_PATH + 1])  # understands both kinds of slash
    return bool(windows.drive or windows.root) or ".." in windows.parts


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
