"""Find every scan below a folder, file by file, say what is none, and name them by their paths."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from pathology_screen.errors import InputError
from pathology_screen.files import text_sha256
from pathology_screen.io.file import (
    BARE_STARTS,
    File,
    check_path,
    dicom_packages,
    is_nifti,
    is_zip,
    leads_nowhere,
    open_archive,
    opened,
    walk,
)

if TYPE_CHECKING:
    from pathology_screen.io.headers import DicomStart

ENTITIES = re.compile(
    r"sub-(?P<subject>[A-Za-z0-9]+)(?:_ses-(?P<session>[A-Za-z0-9]+))?(?:_[a-z]+-[A-Za-z0-9]+)*"
)
"""What the name of an image of BIDS has before its suffix: `sub-01_ses-1_run-2`."""
SUFFIX = re.compile(r"(\.nii(\.gz)?|\.zip|\.dcm)\Z", re.ASCII | re.IGNORECASE)
LONGEST_NAME = 120
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
HEAD = 2**16  # bytes from the start of a file that are read
ONE_SLICE = 2**21  # bytes; of a DICOM file up to this size no more is read
WHOLE = 2**23  # bytes; other scans up to this size are read whole; of larger, samples
SAMPLES, SAMPLE = 64, 2**14  # number, and bytes of each; the last is the end, where check sums are
GOLDEN_RATIO = (5**0.5 - 1) / 2


# --- names ---


def safe_names(paths: Sequence[str]) -> list[str]:
    """Turn relative paths, with "/" between their parts, into names for files: the path without
    suffix in letters, digits, ".", "-" and "_", cut at 120 characters (with a hash at the end), and
    unique even where case is not told apart (with a number at the end).

    >>> safe_names(["sub-01/T1 head.nii.gz", "sub-01_T1_head.nii"])
    ['sub-01_T1_head', 'sub-01_T1_head-2']
    """
    names = []
    for path in paths:
        path = SUFFIX.sub("", path)
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", path).strip(".") or "scan"
        if len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - 9]}-{_text_digest(path)[:8]}"
        names.append(name)
    return _distinct(names, "-")


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


def t1w_images(root: Path) -> list[Path]:
    """List a BIDS dataset's `sub-*/[ses-*/]anat/*_T1w.nii[.gz]`, in order of paths."""
    inside = "anat/*_T1w.nii*"
    found = [*root.glob(f"sub-*/{inside}"), *root.glob(f"sub-*/ses-*/{inside}")]
    return sorted(path for path in found if is_nifti(path) and not path.name.startswith("."))


def entities_of(path: Path) -> str | None:
    """Return the entities of a T1w image; None where its name breaks the rules of BIDS or belongs
    to another folder."""
    entities = path.name.partition("_T1w.nii")[0]
    if not ENTITIES.fullmatch(entities):
        return None
    return entities if path.parent.as_posix().endswith(f"/{folder_of(entities)}") else None


def folder_of(entities: str) -> str:
    """Return the folder of an image in a dataset: `sub-01/ses-1/anat` of `sub-01_ses-1_run-2`."""
    found = ENTITIES.fullmatch(entities)
    if found is None:
        raise ValueError(f"{entities!r} are no entities of BIDS")
    session = f"/ses-{found['session']}" if found["session"] else ""
    return f"sub-{found['subject']}{session}/anat"


# --- the start of every file ---


class Start(NamedTuple):
    """What the start of a file shows: "scan" (or what reading will refuse), "archive", "image" (of
    a DICOM series), "bare" (DICOM without the preamble), "doubtful" (empty, or a link that leads
    nowhere), or "other"; a digest of the content, or of the path where that cannot be read; and
    what a DICOM image states."""

    kind: str
    digest: str
    image: "DicomStart | None" = None

    @property
    def series_uid(self) -> str:
        return self.image.series_uid if self.image else ""


def look(file: File) -> Start:
    """Read the start of a file; in an archive, nothing else is sampled."""
    by_name = "scan" if is_nifti(file) else "archive" if is_zip(file) else ""
    try:
        with opened(file) as stream:
            head = stream.read(HEAD)
            size = os.fstat(stream.fileno()).st_size if isinstance(file, Path) else len(head)
            if by_name:
                return Start(by_name, _digest(head, stream, size))
            if not head:
                return Start("doubtful", _digest(head, stream))
            if head[128:132] == b"DICM" and file.name.upper() != "DICOMDIR":
                return _look_at_dicom(head, stream, size)
            return Start("bare" if head[:4] in BARE_STARTS else "other", _digest(head, stream))
    except InputError:
        lost = not by_name and isinstance(file, Path) and leads_nowhere(file)
        return Start("doubtful" if lost else by_name or "scan", _text_digest(str(file)))


def _look_at_dicom(head: bytes, stream: BinaryIO, size: int) -> Start:
    with dicom_packages():
        from pathology_screen.io.headers import LONGEST_HEAD, dicom_start
    digest = _digest(head, stream, size if size > ONE_SLICE else 0)
    for longest in (HEAD, LONGEST_HEAD):
        if longest > HEAD:
            stream.seek(0)
            head = stream.read(longest)
        image = None
        with suppress(InputError):
            image = dicom_start(head)
        if (image and (image.series_uid or not image.is_image)) or len(head) < longest:
            break
    if image is None:
        return Start("scan", digest)
    return Start("image", digest, image) if image.is_image else Start("other", digest)


def _digest(head: bytes, stream: BinaryIO, size: int = 0) -> str:
    """SHA-256 of the start and, of what is longer, of its size and the rest, or samples of that."""
    digest = hashlib.sha256(head)
    if size > len(head):
        digest.update(str(size).encode())
        if size <= WHOLE:
            digest.update(stream.read(WHOLE))
            return digest.hexdigest()
        spread = sorted(int(size * (number * GOLDEN_RATIO % 1)) for number in range(1, SAMPLES))
        for offset in (*spread, size - SAMPLE):
            stream.seek(offset)
            digest.update(stream.read(SAMPLE))
    return digest.hexdigest()


def _text_digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _together(digests: Iterable[str]) -> str:
    """One digest of several; of one, the same."""
    several = sorted(digests)
    return several[0] if len(several) == 1 else text_sha256("".join(several))


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
        return Discovery(root, tuple(_scans_of_file(root, look(root))), ())
    found: list[FoundScan] = []
    passed_over: list[Path] = []
    closed: list[Path] = []
    parts: dict[tuple[Path, str, str], dict[Path, Start]] = defaultdict(dict)
    for folder, folders, files in walk(root, closed):
        passed_over += [folder / name for name in folders if (folder / name).is_symlink()]
        starts = {file: look(file) for file in files}
        beside_series = any(start.kind in ("image", "bare") for start in starts.values())
        for file, start in starts.items():
            may_be = beside_series or file.name.lower().endswith(DICOM_SUFFIXES)
            if start.kind in ("image", "bare"):
                parts[folder, start.kind, start.series_uid][file] = start
            elif start.kind in ("scan", "archive") or (start.kind == "doubtful" and may_be):
                found += _scans_of_file(file, start)
            else:
                passed_over.append(file)
    found += [FoundScan(folder, (folder,), None, _text_digest(str(folder))) for folder in closed]
    found += _series(parts.values())
    found.sort(key=lambda scan: (str(scan.place), scan.series_uid or ""))
    return Discovery(root, tuple(found), tuple(sorted(passed_over)))


def source_id(image: str | Path | Sequence[str | Path]) -> str:
    """Return `FoundScan.source_id` of the scan at a path, in a list of files, or over a folder."""
    paths = [Path(image)] if isinstance(image, str | Path) else [Path(path) for path in image]
    if paths[0].is_dir():
        paths = [file for *_, files in walk(paths[0], closed=[]) for file in files]
    return _together(look(file).digest for file in paths)


def _series(parts: Iterable[Mapping[Path, Start]]) -> Iterator[FoundScan]:
    """A scan of the files of each series in one folder; those of a series in several folders are
    joined where no slice is in two of them."""
    stacks: dict[object, list[Mapping[Path, Start]]] = defaultdict(list)
    for number, part in enumerate(parts):
        alike = {start.image.stack for start in part.values() if start.image}
        stacks[alike.pop() if len(alike) == 1 else number].append(part)
    for pieces in stacks.values():
        joined = {file: start for piece in pieces for file, start in piece.items()}
        images = [start.image for start in joined.values() if start.image]
        told_apart = [{one.instance for one in images}, {one.position for one in images}]
        if all(len(values) == len(images) for values in told_apart):
            pieces = [joined]
        for starts in pieces:
            folder = Path(os.path.commonpath({file.parent for file in starts}))
            uid = next(iter(starts.values())).series_uid or None
            digest = _together(start.digest for start in starts.values())
            yield FoundScan(folder, tuple(sorted(starts)), uid, digest)


def _scans_of_file(path: Path, start: Start) -> list[FoundScan]:
    """The file; of an archive, the series in it, and itself, for other scans or what reading will
    refuse."""
    if start.kind != "archive":
        return [FoundScan(path, (path,), start.series_uid or None, start.digest)]
    starts: list[Start] = []
    with suppress(InputError), open_archive(path) as files:
        starts = [look(file) for file in files]
    series = {one.series_uid for one in starts if one.image}
    uids: list[str | None] = [*sorted(series - {""})]
    others = any(one.kind in ("scan", "archive", "bare", "doubtful") for one in starts)
    if others or not uids or "" in series:
        uids.append(None)
    told = [[start.digest, *([uid or ""] if len(uids) > 1 else [])] for uid in uids]
    return [FoundScan(path, (path,), uid, _together(parts)) for uid, parts in zip(uids, told)]
