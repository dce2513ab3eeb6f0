"""Find every scan below a folder, file by file, say what is none, and name them by their paths."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.files import text_sha256
from pathology_screen.io.file import (
    BARE_STARTS,
    NIFTI_SUFFIXES,
    File,
    check_path,
    is_nifti,
    is_zip,
    leads_nowhere,
    open_archive,
    opened,
    walk,
)

if TYPE_CHECKING:
    from pathology_screen.io.headers import DicomStart

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
HEAD = 2**16
"""Bytes from the start of a file that are read."""
ONE_SLICE = 2**21
"""Bytes; of a DICOM file up to this size no more is read."""
WHOLE = 2**23
"""Bytes; other scans up to this size are read whole, to tell them apart; of larger, samples."""
SAMPLES, SAMPLE = 64, 2**14
"""Number of samples, and bytes of each; the last is the end, where .gz and .zip have check sums."""
GOLDEN_RATIO = (5**0.5 - 1) / 2
LONGEST_NAME = 120


# --- names ---


def safe_names(paths: Sequence[str]) -> list[str]:
    """Turn relative paths, with "/" between their parts, into names for files: the path without
    suffix in letters, digits, ".", "-" and "_", cut at 120 characters (with a hash at the end), and
    unique even where case is not told apart (with a number at the end).

    >>> safe_names(["sub-01/T1 head.nii.gz", "sub-01_T1_head.nii"])
    ['sub-01_T1_head', 'sub-01_T1_head-2']
    """
    return _distinct(map(_safe_name, paths), "-")


def bids_labels(names: Sequence[str]) -> list[str]:
    """Turn names into BIDS labels: the ASCII letters and digits without a leading "sub-" ("scan"
    where there are none), unique even where case is not told apart (with "x" and a number at the
    end).

    >>> bids_labels(["sub-01_T1w", "01-T1W", "?"])
    ['01T1w', '01T1Wx2', 'scan']
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


def _safe_name(relative: str) -> str:
    for suffix in (*reversed(NIFTI_SUFFIXES), ".zip", ".dcm"):
        if relative.lower().endswith(suffix):
            relative = relative[: -len(suffix)]
            break
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", relative).strip(".") or "scan"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(os.fsencode(relative)).hexdigest()[:8]}"
    return name


# --- scans ---


@dataclass(frozen=True)
class FoundScan:
    """A scan, or what may be one and reading will refuse.

    Attributes:
        place: the file or archive, or the folder of the files of a DICOM series.
        files: the file or archive, or the files of the series, in order of paths.
        series_uid: SeriesInstanceUID of a DICOM series, where it states one.
        source_id: SHA-256 of what the files begin with and, of large ones, of samples of the rest;
            the same for a copy of the scan, wherever it lies.
    """

    place: Path
    files: tuple[Path, ...]
    series_uid: str | None
    source_id: str

    @property
    def source(self) -> Path | list[Path]:
        """As `read_scan` takes it."""
        return self.files[0] if len(self.files) == 1 else list(self.files)


@dataclass(frozen=True)
class Discovery:
    """What lies at or below a path: the scans, in order of paths, and the files that belong to
    none, and links to folders, which are not followed."""

    root: Path
    scans: tuple[FoundScan, ...]
    passed_over: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """`safe_names` of the paths of scans (of a series, its folder) relative to `root`."""
        root, places = self.root, [scan.place for scan in self.scans]
        whole = root.absolute().name
        return safe_names([p.relative_to(root).as_posix() if p != root else whole for p in places])


def discover(root: str | Path) -> Discovery:
    """Find every scan at or below a path, reading the start of every file once.

    A scan is a NIfTI file or a .zip archive (each DICOM series in it), told by the name, and a
    DICOM series, told by the content: the files of one SeriesInstanceUID in one folder, or in
    several folders that hold different slices of it. What cannot be read and may be a scan is
    listed as one, and reading will refuse it: a damaged DICOM file, an empty file or a broken link
    beside DICOM files, a folder that cannot be listed. All else is passed over: other files, DICOM
    objects without an image, links to folders.

    Raises:
        InputError: what `check_path` raises.
        ConfigError: where there are DICOM files and the packages that read them are not installed.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("one.nii.gz", "notes.txt"):
    ...     _ = (folder / name).write_text("what a name promises")
    >>> found = discover(folder)
    >>> found.names, [file.name for file in found.passed_over]
    (['one'], ['notes.txt'])
    """
    root = Path(root)
    check_path(root)
    if not root.is_dir():
        start = look(root)
        uid = start.image.series_uid or None if start.image else None
        alone = [FoundScan(root, (root,), uid, start.digest)]
        scans = _in_archive(root, start) if start.kind == "archive" else alone
        return Discovery(root, tuple(scans), ())
    found: list[FoundScan] = []
    passed_over: list[Path] = []
    parts: list[_Part] = []
    closed: list[Path] = []
    for folder, folders, files in walk(root, closed.append):
        passed_over += [folder / name for name in folders if (folder / name).is_symlink()]
        starts = {file: look(file) for file in files}
        series = _series(folder, starts)
        parts += series
        for file, start in starts.items():
            may_be = series or file.name.lower().endswith(DICOM_SUFFIXES)
            if start.kind == "archive":
                found += _in_archive(file, start)
            elif start.kind == "scan" or (start.kind == "doubtful" and may_be):
                found.append(FoundScan(file, (file,), None, start.digest))
            elif start.kind in ("doubtful", "other"):
                passed_over.append(file)
    found += [FoundScan(folder, (folder,), None, _path_digest(folder)) for folder in closed]
    found += _joined(parts)
    found.sort(key=lambda scan: (str(scan.place), scan.series_uid or ""))
    return Discovery(root, tuple(found), tuple(sorted(passed_over)))


def find_scans(root: str | Path) -> list[dict]:
    """List the scans at or below a path as a MONAI datalist, `[{"image": path or list of paths,
    "name": one of Discovery.names}, ...]`, of DICOM with "series_uid".

    Raises:
        InputError: "empty" where there is no scan; see also `discover`.
        ConfigError: see `discover`.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "one.nii.gz").write_text("what a name promises")
    >>> [item["name"] for item in find_scans(folder)]
    ['one']
    """
    found = discover(root)
    if not found.scans:
        raise InputError("empty")
    items: list[dict] = []
    for scan, name in zip(found.scans, found.names):
        image = [str(file) for file in scan.files]
        chosen = {"series_uid": scan.series_uid} if scan.series_uid else {}
        items.append({"image": image if len(image) > 1 else image[0], "name": name, **chosen})
    return items


def source_id(image: str | Path | Sequence[str | Path]) -> str:
    """Return `FoundScan.source_id` of the scan at a path, in a list of files, or over a folder.

    >>> import tempfile
    >>> files = [Path(tempfile.mkdtemp(), "one.nii.gz") for _ in range(2)]
    >>> _ = [file.write_text("the same scan twice") for file in files]
    >>> source_id(files[0]) == source_id(files[1])
    True
    """
    paths = [Path(image)] if isinstance(image, str | Path) else [Path(path) for path in image]
    if paths[0].is_dir():
        paths = [file for _, _, files in walk(paths[0], lambda closed: None) for file in files]
    return _together(look(file).digest for file in paths)


# --- the start of every file ---


class Start(NamedTuple):
    """What the start of a file shows: "scan" (or what reading will refuse), "archive", "image" (of
    a DICOM series), "bare" (DICOM without the preamble), "doubtful" (empty, or a link that leads
    nowhere), or "other"; a digest of the content, or of the path where that cannot be read; and
    what a DICOM image states."""

    kind: Literal["scan", "archive", "image", "bare", "doubtful", "other"]
    digest: str
    image: "DicomStart | None" = None


def look(file: File) -> Start:
    """Read the start of a file, on disk or in an archive; of the latter, nothing is sampled."""
    by_name: Literal["scan", "archive"] | None = (
        "scan" if is_nifti(file) else "archive" if is_zip(file) else None
    )
    try:
        with opened(file) as stream:
            head = stream.read(HEAD)
            size = os.fstat(stream.fileno()).st_size if isinstance(file, Path) else len(head)
            if by_name:
                return Start(by_name, _digest(head, stream, size))
            if not head:
                return Start("doubtful", _digest(head))
            if head[128:132] == b"DICM" and file.name.upper() != "DICOMDIR":
                return _look_at_dicom(head, stream, size)
            return Start("bare" if head[:4] in BARE_STARTS else "other", _digest(head))
    except InputError:
        lost = by_name is None and isinstance(file, Path) and leads_nowhere(file)
        return Start("doubtful" if lost else by_name or "scan", _path_digest(file))


def _look_at_dicom(head: bytes, stream: BinaryIO, size: int) -> Start:
    try:
        from pathology_screen.io.headers import LONGEST_HEAD, dicom_start
    except ImportError as error:
        raise no_dicom() from error
    digest = _digest(head, stream, size if size > ONE_SLICE else 0)
    for longest in (HEAD, LONGEST_HEAD):
        if longest > HEAD:
            stream.seek(0)
            head = stream.read(longest)
        try:
            image = dicom_start(head)
        except InputError:
            image = None
        if (image and (image.series_uid or not image.is_image)) or len(head) < longest:
            break
    if image is None:
        return Start("scan", digest)
    return Start("image", digest, image) if image.is_image else Start("other", digest)


def no_dicom() -> ConfigError:
    """Say which packages are missing."""
    return ConfigError("DICOM needs pydicom and highdicom: pip install pathology-screen[dicom]")


def _digest(head: bytes, stream: BinaryIO | None = None, size: int = 0) -> str:
    """SHA-256 of the start and, of what is longer, of its size and the rest, or samples of that."""
    digest = hashlib.sha256(head)
    if stream is not None and size > len(head):
        digest.update(str(size).encode())
        if size <= WHOLE:
            digest.update(stream.read(WHOLE))
            return digest.hexdigest()
        spread = sorted(int(size * (number * GOLDEN_RATIO % 1)) for number in range(1, SAMPLES))
        for offset in (*spread, size - SAMPLE):
            stream.seek(offset)
            digest.update(stream.read(SAMPLE))
    return digest.hexdigest()


def _path_digest(file: File) -> str:
    return hashlib.sha256(os.fsencode(str(file))).hexdigest()


def _together(digests: Iterable[str]) -> str:
    """One digest of several; of one, the same."""
    several = sorted(digests)
    return several[0] if len(several) == 1 else text_sha256("".join(several))


# --- series ---


class _Part(NamedTuple):
    """The files of one series in one folder."""

    folder: Path
    starts: dict[Path, Start]

    @property
    def images(self) -> list["DicomStart"]:
        return [start.image for start in self.starts.values() if start.image]

    def scan(self) -> FoundScan:
        uid = self.images[0].series_uid if self.images else ""
        digest = _together(start.digest for start in self.starts.values())
        return FoundScan(self.folder, tuple(sorted(self.starts)), uid or None, digest)


def _series(folder: Path, starts: Mapping[Path, Start]) -> list[_Part]:
    """Sort the DICOM files of a folder by series; those without a preamble are taken together."""
    parts: dict[tuple[str, str], _Part] = {}
    for file, start in starts.items():
        if start.kind in ("image", "bare"):
            key = (start.kind, start.image.series_uid if start.image else "")
            parts.setdefault(key, _Part(folder, {})).starts[file] = start
    return list(parts.values())


def _joined(parts: Sequence[_Part]) -> Iterator[FoundScan]:
    """Join the parts of a series in several folders, where no slice is in two of them."""
    stacks: dict[Any, list[_Part]] = defaultdict(list)
    for number, part in enumerate(parts):
        alike = {image.stack for image in part.images}
        told = all((*one.stack, one.instance, one.position)[1:] for one in part.images)
        stacks[alike.pop() if len(alike) == 1 and told else number].append(part)
    for pieces in stacks.values():
        images = [image for piece in pieces for image in piece.images]
        told_apart = [{one.instance for one in images}, {one.position for one in images}]
        if len(pieces) > 1 and all(len(values) == len(images) for values in told_apart):
            folder = Path(os.path.commonpath([piece.folder for piece in pieces]))
            starts = {file: start for piece in pieces for file, start in piece.starts.items()}
            yield _Part(folder, starts).scan()
        else:
            yield from (piece.scan() for piece in pieces)


def _in_archive(path: Path, start: Start) -> list[FoundScan]:
    """The series in an archive; and itself, for other scans or what reading will refuse."""
    try:
        with open_archive(path) as files:
            starts = [look(file) for file in files]
    except InputError:
        return [FoundScan(path, (path,), None, start.digest)]
    series = {one.image.series_uid for one in starts if one.image}
    others = any(one.kind in ("scan", "archive", "bare", "doubtful") for one in starts)
    uids: list[str | None] = [*sorted(series - {""})]
    if others or len(uids) < len(series) or not series:
        uids.append(None)
    told = [[start.digest, *([uid or ""] if len(uids) > 1 else [])] for uid in uids]
    return [FoundScan(path, (path,), uid, _together(parts)) for uid, parts in zip(uids, told)]
