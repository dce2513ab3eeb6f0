"""The headers of DICOM images: read up to the pixels, sorted by series, the attributes of every
frame, and whether frames are a stack. Through pydicom's parser of elements: `dcmread` would guess
where a file is not what it says, and take most of the time of reading one slice."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from pathology_screen.errors import InputError
from pathology_screen.io.acquisition import FACT_KEYWORDS, acquisition_facts
from pathology_screen.io.description import words
from pathology_screen.io.file import BARE_STARTS, File, is_dicom, one_of, opened

_HEADER = words("""
    SeriesInstanceUID FrameOfReferenceUID Rows Columns NumberOfFrames PhotometricInterpretation
    StudyInstanceUID SOPInstanceUID ImagePositionPatient ImageOrientationPatient PixelSpacing
    RescaleSlope RescaleIntercept SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
    PatientID
""")
_TAGS = {keyword: int(Tag(keyword)) for keyword in (*_HEADER, *FACT_KEYWORDS)}
PIXEL_DATA = {int(Tag(word)) for word in ("FloatPixelData", "DoubleFloatPixelData", "PixelData")}
_SMALL_FILE = 2**18
"""Bytes; smaller files are parsed in memory, in two thirds of the time."""
MAX_FILE_BYTES = 2**31
"""Most bytes of a DICOM file."""
MAX_ITEMS = 50_000
"""Most items of sequences in a file, at any depth; an enhanced image has about twenty a frame."""

LONGEST_HEAD = 2**19
"""Most bytes from the start of a file in which its series is looked for."""
_STACK = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_START_TAGS = [_TAGS[word] for word in (*_STACK, "SOPInstanceUID", "ImagePositionPatient")]

ORIENTATION_TOLERANCE = 1e-3  # greatest difference between direction cosines; 0.06 degrees
UNEVEN = 0.01  # greatest deviation of a gap between slices from their mean, relative
ROUNDING_MM = 0.02  # the same in mm, for small gaps between positions rounded to two decimals

Frame = list[Dataset]
"""The data sets that may hold the attributes of one frame: functional groups, and the header."""


@dataclass(frozen=True)
class DicomStart:
    """What the start of a DICOM file says: `_STACK`, which is alike in all slices of one volume,
    SOPInstanceUID and ImagePositionPatient, as stored, without padding, empty where absent."""

    is_image: bool
    stack: tuple[bytes, ...] = (b"",) * len(_STACK)
    instance: bytes = b""
    position: bytes = b""

    @property
    def series_uid(self) -> str:
        return _as_text(self.stack[2])


def dicom_start(head: bytes) -> DicomStart:
    """Read the first bytes of a DICOM file, with "DICM" at 128; "unreadable" where they do not say
    what it is, or end before they say of which series."""
    source = BytesIO(head)
    is_image, syntax = _kind(source)
    if not is_image or syntax is None:
        return DicomStart(is_image)  # the reader will say why it reads none
    found = _values(source, syntax, lambda tag, *_: tag > max(_START_TAGS), _START_TAGS)
    *stack, instance, position = (found.get(tag, b"") for tag in _START_TAGS)
    return DicomStart(True, tuple(stack), instance, position)


def _kind(source: BinaryIO) -> tuple[bool, UID | None]:
    """Whether a file holds an image, and its transfer syntax, None for one that is not read; leave
    `source` behind them."""
    source.seek(132)
    meta = _values(source, ExplicitVRLittleEndian, lambda tag, *_: tag >> 16 != 2)
    sop_class, syntax = (
        UID(_as_text(meta.get(tag, b"")), validation_mode=IGNORE)  # warnings would repeat the value
        for tag in (0x00020002, 0x00020010)
    )
    if not sop_class or not syntax:
        raise InputError("unreadable", "SOP class or transfer syntax is not stated")
    # pydicom would inflate without a bound
    is_read = syntax.is_transfer_syntax and not syntax.is_deflated
    return sop_class.name.endswith("Image Storage"), syntax if is_read else None


def _values(source: BinaryIO, syntax: UID, stop, tags=None) -> dict[int, bytes]:
    """Elements as they are stored; those before the damage, where the series is among them."""
    found: dict[int, bytes] = {}
    encoding = syntax.is_implicit_VR, syntax.is_little_endian
    try:
        for element in data_element_generator(source, *encoding, stop, specific_tags=tags):
            if isinstance(element, RawDataElement) and element.value:
                if len(element.value) < element.length:
                    raise EOFError
                found[int(element.tag)] = element.value.strip(b" \0")
    except Exception as error:  # whatever a parser raises in the face of damage
        if _TAGS["SeriesInstanceUID"] not in found:
            raise InputError("unreadable", type(error).__name__) from None
    return found


@dataclass(frozen=True)
class DicomImage:
    """A DICOM image object: where it is stored, and its attributes up to the pixels."""

    file: File
    transfer_syntax: UID
    header: Dataset

    @property
    def is_multiframe(self) -> bool:
        return "PerFrameFunctionalGroupsSequence" in self.header

    def text(self, keyword: str) -> str:
        """An attribute as it is stored, as text."""
        return _as_text(raw(self.header, keyword))


def read_header(file: File) -> DicomImage | None:
    """Read a file up to its pixels; None where it is not DICOM, or not an image."""
    with opened(file) as stream:
        start = stream.read(_SMALL_FILE)
        if not start:
            raise InputError("unreadable", "the file is empty")  # as a copy that failed leaves it
        if start[128:132] != b"DICM":
            if start[:4] in BARE_STARTS:
                raise InputError("unreadable", "the preamble of a DICOM file is missing")
            return None
        source: BinaryIO = BytesIO(start)
        if len(start) == _SMALL_FILE:
            source = stream
            _check_large(stream)
        is_image, syntax = _kind(source)
        if not is_image:
            return None
        if syntax is None:
            raise InputError("unsupported_compression", "deflated, or none that DICOM defines")
        elements = data_element_generator(
            *(source, syntax.is_implicit_VR, syntax.is_little_endian),
            stop_when=lambda tag, *_: tag in PIXEL_DATA,
            specific_tags=list(_TAGS.values()),
        )
        header = Dataset({element.tag: element for element in elements})
    if "Rows" not in header:
        raise InputError("unreadable", "the header is cut short")
    return DicomImage(file, syntax, header)


def _check_large(stream: BinaryIO) -> None:
    """Refuse, before parsing, a file that is too long or has too many items of sequences."""
    if stream.seek(0, SEEK_END) > MAX_FILE_BYTES:
        raise InputError("too_large", f"a DICOM file of more than {MAX_FILE_BYTES} bytes")
    stream.seek(0)
    count = 0
    while block := stream.read(2**20):  # of either byte order
        count += block.count(b"\xfe\xff\0\xe0") + block.count(b"\xff\xfe\xe0\0")
    if count > MAX_ITEMS:
        detail = f"the file holds {count} items of sequences; at most {MAX_ITEMS} are read"
        raise InputError("too_large", detail)


def read_headers(files: Sequence[File], series_uid: str | None = None) -> list[DicomImage]:
    """Read the images among the files up to their pixels; "no_image", "unsupported_format" or
    "empty" where none is.

    A damaged file is refused; where a series is chosen, only if it states that it belongs to that,
    or if nothing of it can be read.
    """
    found = []
    for file in files:
        with one_of(file, files):
            try:
                image = read_header(file)
            except InputError:
                if series_uid is None or _states(file, series_uid):
                    raise
            else:
                found += [image] if image else []
    if not found:
        if any(is_dicom(file) for file in files):
            raise InputError("no_image", "the DICOM files hold no image")
        if len(files) == 1:
            raise InputError("unsupported_format")
        hint = "Pass a NIfTI file by its own path"
        raise InputError("empty", f"none of {len(files)} files is DICOM", hint)
    return found


def _states(file: File, series_uid: str) -> bool:
    """Whether a file states at its start that it is of a series, whatever comes behind."""
    with opened(file) as stream:
        start = stream.read(LONGEST_HEAD)
    try:
        return dicom_start(start).series_uid == series_uid
    except InputError:
        return False


def choose_series(images: list[DicomImage], series_uid: str | None) -> list[DicomImage]:
    """Keep the images of one series; "several_series" or "series_not_found" where that is not
    possible, "mixed_identity" for two patients, studies, or slices of one SOPInstanceUID."""
    series = defaultdict(list)
    for image in images:
        series[image.text("SeriesInstanceUID")].append(image)
    if series_uid is not None and series_uid not in series:
        raise InputError("series_not_found", f"{len(series)} others are there")
    if series_uid is None and len(series) > 1:
        counts = ((uid or "no UID", len(members)) for uid, members in sorted(series.items()))
        listed = ", ".join(f"{uid} ({count} images)" for uid, count in counts)
        raise InputError("several_series", listed, "Choose one with series_uid")
    chosen = images if series_uid is None else series[series_uid]
    for keyword, what in (("PatientID", "patients"), ("StudyInstanceUID", "studies")):
        stated = {raw(image.header, keyword).strip(b" \0") for image in chosen}
        if len(stated) > 1:
            raise InputError("mixed_identity", f"{len(stated)} {what}", "Separate them")
    keywords = ("SOPInstanceUID", "ImagePositionPatient")
    slices = {tuple(raw(image.header, keyword) for keyword in keywords) for image in chosen}
    instances = [instance for instance, _ in slices if instance]
    if (count := len(set(instances))) < len(instances):
        raise InputError("mixed_identity", f"{count} SOPInstanceUIDs for {len(slices)} slices")
    return chosen


def image_frames(images: list[DicomImage]) -> list[Frame]:
    """List the frames of one multi-frame image, or of images of one frame each, in the order in
    which they come; "not_3d" where there are several multi-frame images, "missing_geometry" where
    frames are not described."""
    described = [_described(image.header) for image in images]
    if len(images) > 1 and max(map(len, described)) > 1:
        detail = f"the series holds {len(images)} objects, one of which is a volume by itself"
        raise InputError("not_3d", detail)
    frames = [frame for frames in described for frame in frames]
    if sum(number([image.header], "NumberOfFrames", 1) for image in images) != len(frames):
        raise InputError("missing_geometry", "not every frame states where it lies")
    return frames


def _described(header: Dataset) -> list[Frame]:
    """Of each frame the items of its own and of the shared functional groups, and the header."""
    shared = header.get("SharedFunctionalGroupsSequence") or []
    frames = []
    for own in header.get("PerFrameFunctionalGroupsSequence") or [Dataset()]:
        elements = [element for groups in (own, *shared) for element in groups]
        items = [element.value[0] for element in elements if element.VR == "SQ" and element.value]
        frames.append([*items, header])
    return frames


def raw(dataset: Dataset, keyword: str) -> bytes:
    """An attribute as stored, empty where absent; pydicom's conversion takes 20 times as long."""
    element = dataset.get_item(_TAGS[keyword])
    return element.value if element is not None and element.value else b""


def _as_text(stored: bytes) -> str:
    return stored.decode("ascii", "replace").strip(" \0")


def numbers(frame: Frame, keyword: str) -> list[float]:
    """The numbers of an attribute that is stored as text; NaN where it is something else."""
    stored = next(filter(None, (_as_text(raw(dataset, keyword)) for dataset in frame)), None)
    try:
        return [float(one) for one in stored.split("\\")] if stored else []
    except ValueError:
        return [np.nan]


def number(frame: Frame, keyword: str, default: float) -> float:
    """The first of `numbers`."""
    return (numbers(frame, keyword) or [default])[0]


def frame_values(frames: list[Frame], keyword: str, count: int) -> np.ndarray:
    """The numbers of an attribute in every frame, (frames, count), or "missing_geometry"."""
    values = [numbers(frame, keyword) for frame in frames]
    if not all(values):
        raise InputError("missing_geometry", f"{keyword} is absent")
    if any(len(found) != count for found in values) or not np.all(np.isfinite(values)):
        raise InputError("missing_geometry", f"{keyword} is not {count} numbers")
    return np.array(values)


def slice_thickness(image: DicomImage, frame: Frame) -> float | None:
    """SliceThickness in mm; None where it is absent or not positive."""
    thickness = numbers([image.header, *frame], "SliceThickness")
    return next((millimetres for millimetres in thickness if millimetres > 0), None)


# --- stacks ---


def check_parallel(orientations: np.ndarray) -> None:
    """Refuse slices that do not share one ImageOrientationPatient, (N, 6): "mixed_orientation", or
    "missing_geometry" without perpendicular units."""
    difference = np.ptp(orientations, axis=0).max()
    if difference > ORIENTATION_TOLERANCE:
        detail = f"direction cosines differ by {difference:.2g}; "
        detail += f"at most {ORIENTATION_TOLERANCE:g} is accepted"
        hint = "Separate the localizer or the second stack from the series"
        raise InputError("mixed_orientation", detail, hint)
    row, column = orientations[0].reshape(2, 3)
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        detail = "ImageOrientationPatient is not two perpendicular unit vectors"
        raise InputError("missing_geometry", detail)


def check_even(positions: np.ndarray, orientation: np.ndarray) -> None:
    """Refuse slices at positions (N, 3) of one orientation (6,) with a gap that is neither within
    1 % of the mean gap, nor within 0.02 mm of a small one: "duplicate_slice", "missing_slice",
    "uneven_spacing"."""
    gaps = np.diff(np.sort(positions @ np.cross(orientation[:3], orientation[3:])))  # mm
    if not len(gaps):
        return
    if gaps.min() < 0.01:
        detail = f"{np.count_nonzero(gaps < 0.01)} of {len(positions)} slices"
        hint = "The series may hold several echoes or time points, or one file twice"
        raise InputError("duplicate_slice", detail, hint)
    tolerance = gap_tolerance(gaps.mean())
    if np.abs(gaps - gaps.mean()).max() <= tolerance:
        return
    steps = gaps / gaps.min()
    missing = int(np.rint(steps).sum()) - len(gaps)
    if missing and np.allclose(steps, np.rint(steps), atol=0.05):
        raise InputError("missing_slice", f"{missing} missing between {len(positions)} slices")
    accepted = f"{tolerance:.3f} mm from the mean are accepted"
    raise InputError("uneven_spacing", f"{gaps.min():.3f} to {gaps.max():.3f} mm; {accepted}")


def gap_tolerance(gap: float) -> float:
    """Greatest deviation in mm of a gap between slices from the mean gap."""
    return max(UNEVEN * gap, min(ROUNDING_MM, 5 * UNEVEN * gap))


def series_facts(folder: Path) -> dict[str, Any]:
    """Collect the facts of a series, alone in a folder, that another program made a volume of: its
    slices have to be an evenly spaced stack (see `check_parallel` and `check_even`). It works
    without highdicom, and with the older pydicom of MONAI Label's environment."""
    images = read_headers(sorted(file for file in folder.iterdir() if file.is_file()))
    frames = image_frames(images)
    orientations = frame_values(frames, "ImageOrientationPatient", 6)
    check_parallel(orientations)
    check_even(frame_values(frames, "ImagePositionPatient", 3), orientations[0])
    return acquisition_facts([images[0].header, *frames[0]])
