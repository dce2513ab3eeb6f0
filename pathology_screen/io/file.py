"""The files that a path stands for, opened for parsers that may choke on them."""

import io
import os
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO, cast

from pathology_screen.errors import ConfigError, InputError, ScreeningError

BARE_STARTS = {b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\5\0", b"\0\x08\0\0", b"\0\x08\0\5"}
"""First bytes of DICOM data sets that lack the preamble; the reader refuses them."""

MAX_MEMBERS = 50_000
MAX_BYTES = 4 * 2**30  # that an archive's members may declare in all; `zipfile` reads no more
MAX_RATIO = 200  # of unpacked to packed bytes, where more than `RATIO_APPLIES_ABOVE` unpack
RATIO_APPLIES_ABOVE = 64 * 2**20
MAX_PATH, MAX_DEPTH = 1024, 64  # most characters, and parts, of a member's path
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How members may be packed; Python unpacks a whole block of bzip2 or LZMA, however large."""

_unsafe = partial(InputError, "unsafe_archive")


@dataclass(frozen=True)
class Member:
    """A file in an archive (`zipfile.Path` would list every folder above every member)."""

    archive: zipfile.ZipFile
    path: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def open(self, mode: str = "rb") -> IO[bytes]:
        return self.archive.open(self.path)

    def __str__(self) -> str:
        return self.path


File = Path | Member
"""Its name may be a patient's: no refusal repeats it."""


class _Nameless(io.BufferedReader):
    name = "(not named)"  # parsers put the name of a stream into their warnings


@contextmanager
def parsing(what: str = "") -> Iterator[None]:
    """Turn whatever a damaged file makes a parser raise into "unreadable".

    The parser's message may repeat a patient's data: only the kind of error is passed on, and
    `what` could not be read, where that is said.
    """
    try:
        yield
    except (ScreeningError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a decoder written in Rust panics with what is no Exception
        kind = type(error).__name__
        raise InputError("unreadable", f"{what}: {kind}" if what else kind) from None


@contextmanager
def dicom_packages() -> Iterator[None]:
    """Say, where an import fails for want of the packages that read DICOM, how to install them."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("pydicom", "highdicom"):
            raise
        what = "DICOM needs pydicom and highdicom: pip install pathology-screen[dicom]"
        raise ConfigError(what) from error


@contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, `parsing` it."""
    with parsing(), _Nameless(cast(io.RawIOBase, file.open("rb"))) as stream:
        yield stream


@contextmanager
def one_of(file: File, files: Sequence[File]) -> Iterator[None]:
    """Add to a refusal which of several files it is about, by its place in the order of names."""
    try:
        yield
    except InputError as error:
        if len(files) == 1:
            raise
        number = sorted(map(str, files)).index(str(file)) + 1
        place = f"file {number} of {len(files)} in order of names"
        detail = f"{place}: {error.detail}" if error.detail else place
        raise InputError(error.code, detail, error.hint) from None


def is_nifti(file: File) -> bool:
    """Tell by the name whether a file is a NIfTI file."""
    return file.name.lower().endswith((".nii", ".nii.gz"))


def is_zip(file: File) -> bool:
    """Tell by the name whether a file is a .zip archive."""
    return file.name.lower().endswith(".zip")


def is_dicom(file: File) -> bool:
    """Tell by the content whether a file is DICOM, with or without preamble, and no DICOMDIR."""
    if file.name.upper() == "DICOMDIR":
        return False
    with opened(file) as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or start[:4] in BARE_STARTS


@contextmanager
def input_files(path: str | Path | Sequence[str | Path]) -> Iterator[Sequence[File]]:
    """Give the files of a file, folder (at any depth), .zip archive or list of files, to be read
    within the context; raises what `check_path` and `open_archive` raise, and "unreadable" where a
    folder cannot be listed."""
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(file) for file in path]
    for file in paths:
        with one_of(file, paths):
            check_path(file)
    if isinstance(path, str | Path) and paths[0].is_dir():
        closed: list[Path] = []
        paths = [file for *_, files in walk(paths[0], closed) for file in files]
        if closed:
            raise InputError("unreadable", "a folder cannot be listed")
    elif isinstance(path, str | Path) and is_zip(paths[0]):
        with open_archive(paths[0]) as members:
            yield members
        return
    yield paths


def check_path(path: Path) -> None:
    """Refuse a path at which there is neither a file nor a folder (reading a pipe would never end):
    "not_found", "unsupported_format", or "unreadable" where one may not look."""
    with parsing():
        if not path.exists():
            raise InputError("not_found")
        if not (path.is_file() or path.is_dir()):
            raise InputError("unsupported_format", "it is neither a file nor a folder")


def walk(folder: Path, closed: list[Path]) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Like `os.walk`, in order of names, without hidden entries, and with files that cannot be
    opened; every folder that cannot be listed or entered is added to `closed`."""
    for root, folders, names in os.walk(folder, onerror=lambda e: closed.append(Path(e.filename))):
        try:
            Path(root, *[*folders, *names][:1]).lstat()
        except PermissionError:  # it may be listed and not entered
            folders.clear()
            closed.append(Path(root))
            continue
        except OSError:  # it vanished meanwhile
            pass
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        yield Path(root), folders, [file for file in files if _may_be_file(file)]


def _may_be_file(path: Path) -> bool:
    try:
        return path.is_file() or leads_nowhere(path)
    except OSError:
        return True


def leads_nowhere(path: Path) -> bool:
    """Tell a link whose target is absent."""
    return path.is_symlink() and not path.exists()


# --- archives ---


@contextmanager
def open_archive(path: Path) -> Iterator[list[File]]:
    """Give the files of a .zip at any depth, without hidden ones, within the context; "unreadable"
    (damaged or encrypted), "unsafe_archive" (a member outside the archive's own folder, a link, two
    of one path, too many members, too long or deep a path, another packing than deflation, or more
    data than is plausible)."""
    hint = "Unpack the archive yourself and pass the folder, if you trust where it comes from"
    with parsing():
        archive = zipfile.ZipFile(path)
    with archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise _unsafe(f"{len(members)} members; at most {MAX_MEMBERS} are read", hint)
        unpacked = sum(info.file_size for info in members)
        if unpacked > MAX_BYTES:
            raise _unsafe(f"{unpacked} bytes unpacked; at most {MAX_BYTES} are read", hint)
        check_ratio(unpacked, path.stat().st_size)
        for info in members:
            _check_member(info)
        if len({info.filename for info in members}) < len(members):
            raise _unsafe("two members have the same path")
        names = sorted(info.filename for info in members if not info.is_dir())
        yield [Member(archive, name) for name in names if not _is_hidden(name)]


def check_ratio(unpacked: int, packed: int) -> None:
    """Refuse what unpacks to implausibly many bytes; "unsafe_archive"."""
    if unpacked > max(RATIO_APPLIES_ABOVE, MAX_RATIO * packed):
        hint = "Unpack it yourself and pass what it holds, if you trust where it comes from"
        raise _unsafe(f"it unpacks to more than {MAX_RATIO} times its size", hint)


def _check_member(info: zipfile.ZipInfo) -> None:
    windows = PureWindowsPath(info.filename[: MAX_PATH + 1])  # understands both kinds of slash
    if windows.drive or windows.root or ".." in windows.parts:
        raise _unsafe("a member's path is absolute or leads out of the archive")
    if len(info.filename) > MAX_PATH or info.filename.count("/") >= MAX_DEPTH:
        limit = f"at most {MAX_PATH} characters and {MAX_DEPTH} parts are accepted"
        raise _unsafe(f"a member's path is too long or too deep; {limit}")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise _unsafe("a member is a symbolic link")
    if info.compress_type not in METHODS:
        hint = "Pack the archive anew with the usual method (deflate)"
        raise _unsafe(f"a member is packed by method {info.compress_type}", hint)
    if info.flag_bits & 1:
        raise InputError("unreadable", "the archive is encrypted")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
