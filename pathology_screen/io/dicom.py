"""A DICOM series as one volume, or a refusal: headers and pixels through pydicom, geometry through
highdicom."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import BinaryIO

import highdicom
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.config import IGNORE
from pydicom.filereader import data_element_generator
from pydicom.pixels import get_decoder
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.tag import Tag
from pydicom.uid import UID

from pathology_screen.errors import InputError
from pathology_screen.io import checks
from pathology_screen.io.acquisition import FACT_KEYWORDS, acquisition_facts
from pathology_screen.io.decoder_process import plugin_of
from pathology_screen.io.discover import BARE_STARTS, is_dicom
from pathology_screen.io.file import File, one_of, opened, parsing
from pathology_screen.io.intensities import above_background
from pathology_screen.io.peek import series_of
from pathology_screen.io.pixels import padded, real_world, stored_frames
from pathology_screen.io.scan import Scan
from pathology_screen.io.stack import check_parallel, stack_slices

_HEADER = (
    *(
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
        "Rows",
        "Columns",
        "NumberOfFrames",
        "PhotometricInterpretation",
    ),
    *("StudyInstanceUID", "SOPInstanceUID"),
    *(
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PatientID"),
)
_TAGS = {keyword: int(Tag(keyword)) for keyword in (*_HEADER, *FACT_KEYWORDS)}
_PIXEL_DATA = {
    int(Tag(keyword)) for keyword in ("FloatPixelData", "DoubleFloatPixelData", "PixelData")
}
_SMALL_FILE = 2**18  # bytes
MAX_FILE_BYTES = 2**31
"""Most bytes of a DICOM file."""
MAX_SLICE_BYTES = 2**26
"""Most bytes of a DICOM file that holds one slice."""
MAX_ITEMS = 50_000
"""Most items of sequences in a file, at any depth; an enhanced image has about twenty a frame."""


@dataclass(frozen=True)
class DicomImage:
    """A DICOM image object: where it is stored, and its attributes up to the pixels."""

    file: File
    transfer_syntax: UID
    header: Dataset

    @property
    def is_multiframe(self) -> bool:
        return _TAGS["PerFrameFunctionalGroupsSequence"] in self.header


Frame = list[Dataset]
"""The data sets that may hold the attributes of one frame: its header, or the items of its functional groups."""


def read_dicom(
    files: Sequence[File],
    *,
    series_uid: str | None = None,
    axial_slice: bool = False,
    level: str | None = None,
) -> Scan:
    """Read one DICOM series, in which every slice is an object of its own, or one enhanced
    multi-frame object.

    Slices are ordered and spaced by ImagePositionPatient and ImageOrientationPatient alone; array
    axes are (column, row, slice), see `stack_slices`. Voxels are rescaled (or go through the
    modality LUT); MONOCHROME1 is inverted within the range of the stored bits; PixelPaddingValue
    counts as background. Files that are not DICOM images are passed over and counted in `source`.

    Args:
        files: the files to look through, in any order, on disk or in an archive.
        series_uid: SeriesInstanceUID to read, where the files belong to several series.
        axial_slice: declares a single slice as axial; its thickness is SliceThickness, or 1 mm
            where that is absent.
        level: "middle" decodes the middle slice alone, where the slices are closest to axial.

    Raises:
        InputError: see `errors.REFUSALS`.
    """
    found = read_headers(files, series_uid)
    images = choose_series(found, series_uid)
    if not _raw(images[0].header, "SeriesInstanceUID"):
        raise InputError("unreadable", "SeriesInstanceUID is absent")
    with parsing():
        frames = image_frames(images)
        _check_pixels(images, frames)
        geometry, order = stack_frames(images, frames)
    affine, shape = geometry.get_affine("RAS"), geometry.spatial_shape
    obliquity = checks.check_affine(affine)
    checks.check_slices(shape, affine, axial_slice)
    first, stop, part_affine = 0, shape[2], affine
    if level is not None:
        axis, index = checks.axial_index(shape, affine, level)
        if axis == 2:
            first, stop, part_affine = index, index + 1, checks.slice_affine(affine, axis, index)
    array, padding = _decode(images, frames, order[first:stop], files)
    voxels = array.transpose(2, 1, 0)
    checks.check_voxels(voxels)
    if _text(_raw(images[0].header, "Modality")) in ("", "MR"):
        voxels = above_background(voxels, affine, padding.transpose(2, 1, 0))
    source = {
        "format": "dicom",
        "series_uid": _text(_raw(images[0].header, "SeriesInstanceUID")),
        "transfer_syntax": str(images[0].transfer_syntax),
        "file_count": len(images),
        "ignored_file_count": len(files) - len(found),
        "obliquity_deg": round(obliquity, 2),
    }
    with parsing():
        source |= acquisition_facts([images[0].header, *frames[order[0]]])
    patient = _raw(images[0].header, "PatientID").strip()
    subject = hashlib.sha256(patient).hexdigest() if patient else None
    return Scan(voxels, part_affine, shape, affine, source, subject)


def read_headers(files: Sequence[File], series_uid: str | None = None) -> list[DicomImage]:
    """Read the images among the files up to their pixels; "no_image", "unsupported_format" or
    "empty" where none is.

    A damaged file is refused; where a series is chosen, only if it states that it belongs to that,
    or if nothing of it can be read.
    """
    images = []
    for file in files:
        with one_of(file, files):
            try:
                image = read_header(file)
            except InputError:
                if series_uid is None or series_of(file) == series_uid:
                    raise
                continue
        if image is not None:
            images.append(image)
    if not images:
        if any(is_dicom(file) for file in files):
            raise InputError("no_image", "the DICOM files hold no image")
        if len(files) == 1:
            raise InputError("unsupported_format")
        raise InputError(
            "empty", f"none of {len(files)} files is DICOM", "Pass a NIfTI file by its own path"
        )
    return images


def read_header(file: File) -> DicomImage | None:
    """Read a file up to its pixels; None where it is not DICOM, or not an image (a report, a
    segmentation, a DICOMDIR).

    pydicom's `dcmread` would guess where a file is not what it says, and take most of the time of
    reading one slice.
    """
    with opened(file) as stream:
        start = stream.read(_SMALL_FILE)
        if not start:
            raise InputError("unreadable", "the file is empty")  # as a copy that failed leaves it
        if start[128:132] != b"DICM":
            if start[:4] in BARE_STARTS:
                raise InputError("unreadable", "the preamble of a DICOM file is missing")
            return None
        if len(start) == _SMALL_FILE and stream.seek(0, SEEK_END) > MAX_FILE_BYTES:
            raise InputError("too_large", f"a DICOM file of more than {MAX_FILE_BYTES} bytes")
        _check_items(stream, start)
        source = (
            BytesIO(start) if len(start) < _SMALL_FILE else stream
        )  # memory is parsed in two thirds of the time
        source.seek(132)
        elements = data_element_generator(
            source, False, True, stop_when=lambda tag, *_: tag >> 16 != 2
        )
        meta = {int(element.tag): element.value for element in elements}
        sop_class, syntax = _uid(meta.get(0x00020002)), _uid(meta.get(0x00020010))
        if not sop_class or not syntax:
            raise InputError("unreadable", "SOP class or transfer syntax is not stated")
        if not sop_class.name.endswith("Image Storage"):
            return None
        if (
            not syntax.is_transfer_syntax or syntax.is_deflated
        ):  # pydicom would inflate without a bound
            known = (
                "a deflated data set" if syntax.is_transfer_syntax else "not one that DICOM defines"
            )
            raise InputError("unsupported_compression", known)
        elements = data_element_generator(
            *(source, syntax.is_implicit_VR, syntax.is_little_endian),
            stop_when=lambda tag, *_: tag in _PIXEL_DATA,
            specific_tags=list(_TAGS.values()),
        )
        header = Dataset({element.tag: element for element in elements})
    if _TAGS["Rows"] not in header:
        raise InputError("unreadable", "the header is cut short")
    return DicomImage(file, syntax, header)


def choose_series(images: list[DicomImage], series_uid: str | None) -> list[DicomImage]:
    """Keep the images of one series; "several_series" or "series_not_found" where that is not
    possible."""
    series = defaultdict(list)
    for image in images:
        series[_text(_raw(image.header, "SeriesInstanceUID"))].append(image)
    if series_uid is not None and series_uid not in series:
        raise InputError("series_not_found", f"{len(series)} others are there")
    if series_uid is None and len(series) > 1:
        listed = ", ".join(
            f"{uid or 'no UID'} ({len(members)} images)" for uid, members in sorted(series.items())
        )
        raise InputError("several_series", listed, "Choose one with series_uid")
    chosen = images if series_uid is None else series[series_uid]
    _check_identity(chosen)
    return chosen


def _check_identity(images: list[DicomImage]) -> None:
    """Refuse a series of two patients or studies, and different slices under one SOPInstanceUID."""
    for keyword, what in (("PatientID", "patients"), ("StudyInstanceUID", "studies")):
        stated = {_raw(image.header, keyword).strip(b" \0") for image in images}
        if len(stated) > 1:
            raise InputError("mixed_identity", f"{len(stated)} {what}", "Separate them")
    slices = {
        tuple(_raw(image.header, key) for key in ("SOPInstanceUID", "ImagePositionPatient"))
        for image in images
    }
    instances = {instance for instance, _ in slices if instance}
    if len(instances) < sum(1 for instance, _ in slices if instance):
        raise InputError(
            "mixed_identity", f"{len(instances)} SOPInstanceUIDs for {len(slices)} slices"
        )


def image_frames(images: list[DicomImage]) -> list[Frame]:
    """List the frames of one multi-frame image, or of images of one frame each, in the order in
    which they come; "not_3d" where there are several multi-frame images, "missing_geometry" where
    frames are not described."""
    described = [_described_frames(image.header) for image in images]
    if len(images) > 1 and max(map(len, described)) > 1:
        raise InputError(
            "not_3d", f"the series holds {len(images)} objects, one of which is a volume by itself"
        )
    frames = [frame for frames in described for frame in frames]
    if sum((_numbers([image.header], "NumberOfFrames") or [1])[0] for image in images) != len(
        frames
    ):
        raise InputError("missing_geometry", "not every frame states where it lies")
    return frames


def _described_frames(header: Dataset) -> list[Frame]:
    def items(groups: Dataset) -> Frame:
        return [element.value[0] for element in groups if element.VR == "SQ" and element.value]

    shared = [
        item
        for groups in header.get("SharedFunctionalGroupsSequence") or []
        for item in items(groups)
    ]
    own = header.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    return [[*items(groups), *shared, header] for groups in own]


def _check_items(stream: BinaryIO, start: bytes) -> None:
    """Refuse a file of more items of sequences than an image has, before they are parsed; `start`
    is what was read."""
    if len(start) < _SMALL_FILE:
        return
    stream.seek(0)
    count = 0
    while block := stream.read(2**20):
        count += block.count(b"\xfe\xff\0\xe0") + block.count(
            b"\xff\xfe\xe0\0"
        )  # of either byte order
    if count > MAX_ITEMS:
        raise InputError(
            "too_large", f"the file holds {count} items of sequences; at most {MAX_ITEMS} are read"
        )


def _raw(dataset: Dataset, keyword: str) -> bytes:
    """An attribute as it is stored (pydicom's conversion takes twenty times as long); empty where
    it is absent."""
    element = dataset.get_item(_TAGS[keyword])
    return element.value if element is not None and element.value else b""


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("ascii", "replace").strip(" \0")


def _uid(raw: bytes | None) -> UID:
    return UID(_text(raw), validation_mode=IGNORE)  # pydicom's warning would repeat the value


def _numbers(frame: Frame, keyword: str) -> list[float]:
    """The numbers of an attribute that is stored as text: none where it is absent, NaN where it is
    something else."""
    text = next(filter(None, (_text(_raw(dataset, keyword)) for dataset in frame)), None)
    try:
        return [float(number) for number in text.split("\\")] if text else []
    except ValueError:
        return [np.nan]


def _check_pixels(images: list[DicomImage], frames: list[Frame]) -> None:
    """Refuse what cannot be decoded to one grey value a pixel."""
    photometric = {_text(_raw(image.header, "PhotometricInterpretation")) for image in images}
    if not photometric <= {"MONOCHROME1", "MONOCHROME2"}:
        defined = sorted(photometric & set(PhotometricInterpretation))
        raise InputError(
            "not_monochrome", ", ".join(defined) or "absent, or not one that DICOM defines"
        )
    for syntax in {image.transfer_syntax for image in images}:
        try:
            available = (
                not syntax.is_encapsulated
                or plugin_of(syntax) in get_decoder(syntax).available_plugins
            )
        except NotImplementedError:
            available = False
        if not available:
            raise InputError(
                "unsupported_compression", syntax.name, "pip install pathology-screen[dicom]"
            )
    for frame in frames:
        slope, intercept = _numbers(frame, "RescaleSlope"), _numbers(frame, "RescaleIntercept")
        if not all(map(math.isfinite, slope + intercept)) or 0 in slope:
            raise InputError("bad_rescale")


def stack_frames(
    images: list[DicomImage], frames: list[Frame]
) -> tuple[highdicom.VolumeGeometry, list[int]]:
    """Place the frames in space: the volume's geometry, axes (column, row, slice), and each slice's
    index in `frames`; raises what `stack_slices` and `io.checks` raise."""
    positions = frame_values(frames, "ImagePositionPatient", 3)
    orientations = frame_values(frames, "ImageOrientationPatient", 6)
    spacings = frame_values(frames, "PixelSpacing", 2)
    check_parallel(orientations)
    spaces = {_text(_raw(image.header, "FrameOfReferenceUID")) for image in images}
    if "" in spaces or spacings.min() <= 0:
        raise InputError(
            "missing_geometry", "FrameOfReferenceUID is absent or PixelSpacing is not positive"
        )
    if len(spaces) > 1:
        raise InputError("mixed_frame_of_reference", f"{len(spaces)} frames of reference")
    distinct = {
        _raw(image.header, "Rows") + _raw(image.header, "Columns"): image.header for image in images
    }
    sizes = {(header.Rows, header.Columns) for header in distinct.values()}
    if len(sizes) > 1:
        raise InputError(
            "mixed_size", ", ".join(f"{rows} x {columns}" for rows, columns in sorted(sizes))
        )
    rows, columns = sizes.pop()
    checks.check_shape((columns, rows, len(frames)))
    thickness = slice_thickness(images[0], frames[0]) or 1.0
    return stack_slices(positions, orientations[0], spacings, rows, columns, thickness)


def slice_thickness(image: DicomImage, frame: Frame) -> float | None:
    """SliceThickness in mm; None where it is absent or not positive."""
    return next(filter(lambda mm: mm > 0, _numbers([image.header, *frame], "SliceThickness")), None)


def frame_values(frames: list[Frame], keyword: str, count: int) -> np.ndarray:
    """The numbers of an attribute in every frame, (frames, count); "missing_geometry" where they
    are not there."""
    values = [_numbers(frame, keyword) for frame in frames]
    if not all(values):
        raise InputError("missing_geometry", f"{keyword} is absent")
    if any(len(numbers) != count for numbers in values) or not np.all(np.isfinite(values)):
        raise InputError("missing_geometry", f"{keyword} is not {count} numbers")
    return np.array(values)


def _decode(
    images: list[DicomImage], frames: list[Frame], wanted: Sequence[int], files: Sequence[File]
) -> tuple[np.ndarray, np.ndarray]:
    """Values of the wanted frames, float32, and which of them are padding, bool; both (slices,
    rows, columns)."""
    if len(images) == 1:
        dataset = _read_dataset(images[0])
        with parsing():
            return _values(dataset, [frames[i] for i in wanted], wanted)
    values, padding = [], []
    for i in wanted:
        with one_of(images[i].file, files), parsing():
            value, pad = _values(_read_dataset(images[i]), [frames[i]], [0])
            values.append(value)
            padding.append(pad)
    return np.concatenate(values), np.concatenate(padding)


def _read_dataset(image: DicomImage) -> Dataset:
    most = MAX_FILE_BYTES if image.is_multiframe else MAX_SLICE_BYTES
    with opened(image.file) as stream:
        if stream.seek(0, SEEK_END) > most:
            raise InputError("too_large", f"the file of one slice has more than {most} bytes")
        stream.seek(0)
        dataset = dcmread(BytesIO(stream.read()))
        if _TAGS["Rows"] not in dataset:
            raise InputError("unreadable", "the header is cut short")
        if not any(tag in dataset for tag in _PIXEL_DATA):
            raise InputError("no_image")
    return dataset


def _values(
    dataset: Dataset, frames: list[Frame], indices: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    stored = stored_frames(dataset, indices)
    scaling = [
        [
            (_numbers(frame, keyword) or [default])[0]
            for keyword, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
        ]
        for frame in frames
    ]
    values = [real_world(pixels, dataset, *scale) for pixels, scale in zip(stored, scaling)]
    return np.stack(values), padded(stored, dataset)
