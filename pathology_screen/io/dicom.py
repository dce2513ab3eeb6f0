"""A DICOM series as one volume, or a refusal: headers through pydicom, geometry and voxels through highdicom."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import highdicom
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.config import IGNORE
from pydicom.filereader import data_element_generator
from pydicom.pixels import get_decoder
from pydicom.tag import Tag
from pydicom.uid import UID

from pathology_screen.errors import InputError
from pathology_screen.io import checks
from pathology_screen.io.acquisition import FACT_KEYWORDS, acquisition_facts
from pathology_screen.io.discover import BARE_STARTS, is_dicom
from pathology_screen.io.file import File, opened, parsing
from pathology_screen.io.scan import Scan
from pathology_screen.io.stack import ORIENTATION_TOLERANCE, check_parallel, stack_slices

_HEADER = (
    *("SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns", "NumberOfFrames", "PhotometricInterpretation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_TAGS = {keyword: int(Tag(keyword)) for keyword in (*_HEADER, *FACT_KEYWORDS)}
_PIXEL_DATA = {int(Tag(keyword)) for keyword in ("FloatPixelData", "DoubleFloatPixelData", "PixelData")}
_SMALL_FILE = 2**18  # bytes
_TRANSFORMS: dict[str, Any] = {"dtype": np.float32, "apply_real_world_transform": False, "apply_voi_transform": False}


@dataclass(frozen=True)
class _Image:
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
    files: Sequence[File], *, series_uid: str | None = None, axial_slice: bool = False, level: str | None = None
) -> Scan:
    """Read one DICOM series, in which every slice is an object of its own, or one enhanced multi-frame object.

    Slices are ordered and spaced by ImagePositionPatient and ImageOrientationPatient alone; array axes are (column,
    row, slice), see `stack_slices`. Voxels are rescaled (or go through the modality LUT); MONOCHROME1 is inverted
    within the range of the stored bits. Files that are not DICOM images are passed over and counted in `source`.

    Args:
        files: the files to look through, in any order, on disk or in an archive.
        series_uid: SeriesInstanceUID to read, where the files belong to several series.
        axial_slice: declares a single slice as axial; its thickness is SliceThickness, or 1 mm where that is absent.
        level: "middle" decodes the middle slice alone, where the slices are closest to axial.

    Raises:
        InputError: see `errors.REFUSALS`.
    """
    found = _read_headers(files)
    images = _choose_series(found, series_uid)
    with parsing(images[0].file):
        frames = _frames(images)
        _check_pixels(images, frames)
        geometry, order = _stack(images, frames)
    affine, shape = geometry.get_affine("RAS"), geometry.spatial_shape
    obliquity = checks.check_affine(affine)
    checks.check_slices(shape, affine, axial_slice)
    first, stop, part_affine = 0, shape[2], affine
    if level is not None:
        axis, index = checks.axial_index(shape, affine, level)
        if axis == 2:
            first, stop, part_affine = index, index + 1, checks.slice_affine(affine, axis, index)
    if images[0].is_multiframe:
        array = _decode_multiframe(images[0], shape[2] - stop, shape[2] - first)
    else:
        images = [images[i] for i in order]
        array = _decode_series(images[first:stop])
    voxels = array[::-1].copy().transpose(2, 1, 0)  # highdicom's slices run against the normal
    checks.check_voxels(voxels)
    source = {
        "format": "dicom",
        "series_uid": _text(_raw(images[0].header, "SeriesInstanceUID")),
        "transfer_syntax": str(images[0].transfer_syntax),
        "file_count": len(images),
        "ignored_file_count": len(files) - len(found),
        "obliquity_deg": round(obliquity, 2),
    }
    with parsing(images[0].file):
        source |= acquisition_facts([images[0].header, *frames[order[0]]])
    return Scan(voxels, part_affine, shape, affine, source)


def _read_headers(files: Sequence[File]) -> list[_Image]:
    images = [image for file in files if (image := _read_header(file)) is not None]
    if not images:
        if any(is_dicom(file) for file in files):
            raise InputError("no_image", "the DICOM files hold no image")
        if len(files) == 1:
            raise InputError("unsupported_format", files[0].name)
        raise InputError("empty", f"none of {len(files)} files is DICOM", "Pass a NIfTI file by its own path")
    return images


def _read_header(file: File) -> _Image | None:
    """Read a file up to its pixels; None where it is not DICOM, or not an image (a report, a segmentation, a DICOMDIR).

    pydicom's `dcmread` would guess where a file is not what it says, and take most of the time of reading one slice.
    """
    with opened(file) as stream:
        start = stream.read(_SMALL_FILE)
        if start[128:132] != b"DICM":
            if start[:4] in BARE_STARTS:
                raise InputError("unreadable", f"{file.name} lacks the preamble of a DICOM file")
            return None
        source = BytesIO(start) if len(start) < _SMALL_FILE else stream  # memory is parsed in two thirds of the time
        source.seek(132)
        elements = data_element_generator(source, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        meta = {int(element.tag): element.value for element in elements}
        sop_class, syntax = _uid(meta.get(0x00020002)), _uid(meta.get(0x00020010))
        if not sop_class or not syntax:
            raise InputError("unreadable", f"{file.name} does not state its SOP class and transfer syntax")
        if not sop_class.name.endswith("Image Storage"):
            return None
        if not syntax.is_transfer_syntax or syntax.is_deflated:  # pydicom would inflate without a bound
            raise InputError("unsupported_compression", f"transfer syntax {syntax}")
        elements = data_element_generator(
            *(source, syntax.is_implicit_VR, syntax.is_little_endian),
            stop_when=lambda tag, *_: tag in _PIXEL_DATA,
            specific_tags=list(_TAGS.values()),
        )
        header = Dataset({element.tag: element for element in elements})
    if _TAGS["Rows"] not in header:
        raise InputError("unreadable", f"the header of {file.name} is cut short")
    return _Image(file, syntax, header)


def _choose_series(images: list[_Image], series_uid: str | None) -> list[_Image]:
    series = defaultdict(list)
    for image in images:
        series[_text(_raw(image.header, "SeriesInstanceUID"))].append(image)
    listed = ", ".join(f"{uid or 'no UID'} ({len(members)} images)" for uid, members in sorted(series.items()))
    if series_uid is not None and series_uid not in series:
        raise InputError("series_not_found", f"found {listed}")
    if series_uid is None and len(series) > 1:
        raise InputError("several_series", listed, "Choose one with series_uid")
    chosen = images if series_uid is None else series[series_uid]
    if len(chosen) > 1 and any(image.is_multiframe for image in chosen):
        raise InputError("not_3d", f"the series holds {len(chosen)} objects, one of which is a volume by itself")
    return chosen


def _frames(images: list[_Image]) -> list[Frame]:
    def items(groups: Dataset) -> Frame:
        return [element.value[0] for element in groups if element.VR == "SQ" and element.value]

    header = images[0].header
    if images[0].is_multiframe:
        shared = [item for groups in header.get("SharedFunctionalGroupsSequence", []) for item in items(groups)]
        frames = [items(groups) + shared for groups in header.PerFrameFunctionalGroupsSequence]
    else:
        frames = [[image.header] for image in images]
    if sum((_numbers([image.header], "NumberOfFrames") or [1])[0] for image in images) != len(frames):
        raise InputError("missing_geometry", "not every frame states where it lies")
    return frames


def _raw(dataset: Dataset, keyword: str) -> bytes:
    """An attribute as it is stored (pydicom's conversion takes twenty times as long); empty where it is absent."""
    element = dataset.get_item(_TAGS[keyword])
    return element.value if element is not None and element.value else b""


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("ascii", "replace").strip(" \0")


def _uid(raw: bytes | None) -> UID:
    return UID(_text(raw), validation_mode=IGNORE)  # pydicom's warning would repeat the value


def _numbers(frame: Frame, keyword: str) -> list[float]:
    """The numbers of an attribute that is stored as text: none where it is absent, NaN where it is something else."""
    text = next(filter(None, (_text(_raw(dataset, keyword)) for dataset in frame)), None)
    try:
        return [float(number) for number in text.split("\\")] if text else []
    except ValueError:
        return [np.nan]


def _check_pixels(images: list[_Image], frames: list[Frame]) -> None:
    """Refuse what cannot be decoded to one grey value a pixel."""
    photometric = {_text(_raw(image.header, "PhotometricInterpretation")) for image in images}
    if not photometric <= {"MONOCHROME1", "MONOCHROME2"}:
        raise InputError("not_monochrome", ", ".join(sorted(photometric)))
    for syntax in {image.transfer_syntax for image in images}:
        try:
            available = get_decoder(syntax).is_available
        except NotImplementedError:
            available = False
        if not available:
            raise InputError("unsupported_compression", syntax.name, "pip install pathology-screen[dicom]")
    for frame in frames:
        slope, intercept = _numbers(frame, "RescaleSlope"), _numbers(frame, "RescaleIntercept")
        if not all(map(math.isfinite, slope + intercept)) or 0 in slope:
            raise InputError("bad_rescale")


def _stack(images: list[_Image], frames: list[Frame]) -> tuple[highdicom.VolumeGeometry, list[int]]:
    positions = _geometry(frames, "ImagePositionPatient", 3)
    orientations = _geometry(frames, "ImageOrientationPatient", 6)
    spacings = _geometry(frames, "PixelSpacing", 2)
    check_parallel(orientations)
    spaces = {_text(_raw(image.header, "FrameOfReferenceUID")) for image in images}
    if "" in spaces or spacings.min() <= 0:
        raise InputError("missing_geometry", "FrameOfReferenceUID is absent or PixelSpacing is not positive")
    if len(spaces) > 1:
        raise InputError("mixed_frame_of_reference", f"{len(spaces)} frames of reference")
    distinct = {_raw(image.header, "Rows") + _raw(image.header, "Columns"): image.header for image in images}
    sizes = {(header.Rows, header.Columns) for header in distinct.values()}
    if len(sizes) > 1:
        raise InputError("mixed_size", ", ".join(f"{rows} x {columns}" for rows, columns in sorted(sizes)))
    rows, columns = sizes.pop()
    checks.check_shape((columns, rows, len(frames)))
    thickness = next(filter(lambda mm: mm > 0, _numbers([images[0].header, *frames[0]], "SliceThickness")), 1.0)
    return stack_slices(positions, orientations[0], spacings, rows, columns, thickness)


def _geometry(frames: list[Frame], keyword: str, count: int) -> np.ndarray:  # (frames, count)
    values = [_numbers(frame, keyword) for frame in frames]
    if not all(values):
        raise InputError("missing_geometry", f"{keyword} is absent")
    if any(len(numbers) != count for numbers in values) or not np.all(np.isfinite(values)):
        raise InputError("missing_geometry", f"{keyword} is not {count} numbers")
    return np.array(values)


def _decode_series(images: list[_Image]) -> np.ndarray:  # (slices, rows, columns)
    datasets = []
    for image in images:
        with opened(image.file) as stream:
            dataset = dcmread(BytesIO(stream.read()))  # without a name, which pydicom would put into its warnings
        if _TAGS["Rows"] not in dataset:
            raise InputError("unreadable", f"{image.file.name} is cut short")
        if not any(tag in dataset for tag in _PIXEL_DATA):
            raise InputError("no_image", f"{image.file.name} holds no pixel data")
        dataset.pop("SpacingBetweenSlices", None)  # highdicom would believe it of a single slice
        datasets.append(dataset)
    with parsing(images[0].file):
        return highdicom.get_volume_from_series(datasets, orientation_tol=ORIENTATION_TOLERANCE, **_TRANSFORMS).array


def _decode_multiframe(image: _Image, first: int, stop: int) -> np.ndarray:  # (slices, rows, columns)
    with opened(image.file) as stream:
        volume = highdicom.imread(stream, lazy_frame_retrieval=True)
        return volume.get_volume(slice_start=first, slice_end=stop, as_indices=True, **_TRANSFORMS).array
