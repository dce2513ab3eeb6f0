"""What derived objects repeat of the DICOM series that a scan was read from, without its pixels."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.io.description import words
from pathology_screen.io.dicom import MAX_SLICE_BYTES, stack_frames
from pathology_screen.io.file import File, input_files, is_nifti, opened, parsing
from pathology_screen.io.headers import (
    DicomImage,
    choose_series,
    frame_values,
    image_frames,
    read_header,
    read_headers,
    slice_thickness,
)

PATIENT_AND_STUDY = words("""
    SpecificCharacterSet PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence
    PatientBirthDate PatientSex PatientIdentityRemoved DeidentificationMethod
    DeidentificationMethodCodeSequence StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber
    IssuerOfAccessionNumberSequence ReferringPhysicianName StudyDescription
""")
"""What tells patient and study, and so has to be the same in every object of the study."""
IMAGE = words("""
    SOPClassUID SOPInstanceUID SeriesInstanceUID SeriesNumber FrameOfReferenceUID
    PositionReferenceIndicator NumberOfFrames LossyImageCompression LossyImageCompressionRatio
    LossyImageCompressionMethod Manufacturer ManufacturerModelName
""")
"""What a reference to an image, or an object in its frame of reference, needs of it."""
NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True, eq=False)
class SourceStack:
    """How the frames of a series make the volume of a scan."""

    shape: tuple[int, int, int]  # (I, J, K): columns, rows, slices
    affine: np.ndarray  # (4, 4), voxel -> RAS+ mm
    positions: np.ndarray  # (K, 3), ImagePositionPatient of every slice, LPS+ mm
    orientation: np.ndarray  # (6,), ImageOrientationPatient of all
    pixel_spacing: np.ndarray  # (2,), between rows and between columns in mm
    slice_thickness: float | None  # mm, where it is stated
    frame_numbers: tuple[int, ...] | None  # of the slices, from 1, in one multi-frame object


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """A DICOM series without its pixels: the attributes `PATIENT_AND_STUDY` and `IMAGE`, as far as
    they are there, of every slice in the order of the volume, or of the one multi-frame object;
    where the series was not read as a volume, `stack` is None and the order is that of files."""

    datasets: tuple[Dataset, ...]
    stack: SourceStack | None


def read_source_series(
    path: str | Path | Sequence[str | Path], series_uid: str | None = None, *, stacked: bool = True
) -> SourceSeries:
    """Read the headers of the series behind a scan, by the arguments of `read_scan`: `stacked` as
    that does; otherwise the series may be one that it refuses, and files that cannot be read are
    left out. A ConfigError where the scan is not DICOM, or names nothing to refer to; an InputError
    for a series that `read_scan` refuses by its headers, or if not `stacked`, where there is no
    series or several of them."""
    with input_files(path) as files:
        if len(files) == 1 and is_nifti(files[0]):
            lacks = "a NIfTI file names no patient, study or series"
            raise ConfigError(f"DICOM results need a DICOM source: {lacks}")
        if stacked:
            images = choose_series(read_headers(files, series_uid), series_uid)
            images, stack = _stack(images)
        else:
            images, stack = choose_series(_readable(files), series_uid), None
        datasets = tuple(_read_identity(image) for image in images)
    if any(not dataset.get(keyword) for dataset in datasets for keyword in NEEDED):
        lacks = f"an image of the series lacks one of {', '.join(NEEDED)}"
        raise ConfigError(f"{lacks}: results cannot refer to it")
    return SourceSeries(datasets, stack)


def _readable(files: Sequence[File]) -> list[DicomImage]:
    found: list[DicomImage] = []
    for file in files:
        with suppress(InputError):
            found += filter(None, [read_header(file)])
    if not found:
        raise InputError("no_image", "no file holds the header of an image")
    return found


def _stack(images: list[DicomImage]) -> tuple[list[DicomImage], SourceStack]:
    """The images in the order of the volume that they make, and how."""
    with parsing():
        frames = image_frames(images)
        geometry, order = stack_frames(images, frames)
    columns, rows, slices = geometry.spatial_shape
    one_object = len(images) == 1 and images[0].is_multiframe
    return images if one_object else [images[i] for i in order], SourceStack(
        shape=(columns, rows, slices),
        affine=geometry.get_affine("RAS"),
        positions=frame_values(frames, "ImagePositionPatient", 3)[order],
        orientation=frame_values(frames, "ImageOrientationPatient", 6)[0],
        pixel_spacing=frame_values(frames, "PixelSpacing", 2)[0],
        slice_thickness=slice_thickness(images[0], frames[0]),
        frame_numbers=tuple(i + 1 for i in order) if one_object else None,
    )


def _read_identity(image: DicomImage) -> Dataset:
    tags = [*PATIENT_AND_STUDY, *IMAGE]
    with opened(image.file) as stream, disable_value_validation():  # warnings would repeat values
        source = stream if image.is_multiframe else BytesIO(stream.read(MAX_SLICE_BYTES))
        dataset = dcmread(source, stop_before_pixels=True, specific_tags=tags)
        for _ in dataset.iterall():  # decodes every value
            pass
    return dataset
