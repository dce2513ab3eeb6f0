"""The source's images as highdicom wants them: references and geometry, no patient.

highdicom checks and logs what it is given of a patient, so it is given nothing: `identify` then
writes patient and study into the finished object as they stand in the source.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from highdicom import (
    CoordinateSystemNames,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
)
from pydicom import Dataset

from pathology_screen.geometry import spacing
from pathology_screen.io.source import IMAGE, PATIENT_AND_STUDY, SourceSeries, SourceStack
from pathology_screen.result import ScreeningResult
from pathology_screen.space import PLANE_SHAPE, put_back

PATIENT = CoordinateSystemNames.PATIENT
BLANK = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
    *("StudyID", "AccessionNumber", "StudyDate", "StudyTime"),
)
"""What highdicom asks for; an object has them, empty or not."""


class Reference(NamedTuple):
    """A source image; its frames where it has several."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_numbers: list[int] | None = None


def reference_images(series: SourceSeries) -> list[Dataset]:
    """Describe the images of a series to highdicom, in order, or as one multi-frame image."""
    images = []
    for dataset in series.datasets:
        image = Dataset()
        for keyword in ("StudyInstanceUID", *IMAGE):
            if keyword in dataset:
                image[keyword] = dataset[keyword]
        for keyword in BLANK:
            setattr(image, keyword, None)
        images.append(image)
    if series.stack is not None:
        _place(images, series.stack)
    return images


def _place(images: list[Dataset], stack: SourceStack) -> None:
    step = float(spacing(stack.affine)[2])
    thickness = stack.slice_thickness or step
    measures = PixelMeasuresSequence(stack.pixel_spacing.tolist(), thickness, step)
    orientation = PlaneOrientationSequence(PATIENT, stack.orientation.tolist())
    positions = positions_of(stack, range(len(stack.positions)))
    for image in images:
        image.Columns, image.Rows = stack.shape[:2]
    if stack.frame_numbers is None:
        for image, position in zip(images, positions):
            for group in (measures, orientation, position):
                image.update(group[0])
        return
    shared, frames = Dataset(), [Dataset() for _ in positions]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = measures, orientation
    for number, position in zip(stack.frame_numbers, positions):
        frames[number - 1].PlanePositionSequence = position
    images[0].SharedFunctionalGroupsSequence = [shared]
    images[0].PerFrameFunctionalGroupsSequence = frames


def cut_slices(result: ScreeningResult, shape: tuple[int, int, int]) -> list[int]:
    """Find which slices, along the third axis of a scan (I, J, K), the screened plane cuts."""
    one, affine = result.slice, result.affine
    if one is None or affine is None or one.mni_affine is None or one.plane_mm is None:
        return list(range(shape[2]))
    to_scan = one.affine @ np.linalg.inv(one.mni_affine)
    _, cut = put_back(np.ones(PLANE_SHAPE), to_scan, one.plane_mm, shape, affine)
    return np.flatnonzero(cut.any(axis=(0, 1))).tolist()


def frames_of(volume: np.ndarray, slices: Sequence[int]) -> np.ndarray:
    """Turn slices of a volume (I, J, K) into frames (N, rows, columns)."""
    return np.ascontiguousarray(volume[..., slices].transpose(2, 1, 0))


def positions_of(stack: SourceStack, slices: Sequence[int]) -> list[PlanePositionSequence]:
    """Where slices of a volume lie."""
    return [PlanePositionSequence(PATIENT, stack.positions[k].tolist()) for k in slices]


def references_to(series: SourceSeries, slices: Sequence[int] | None = None) -> list[Reference]:
    """Refer to the source images of slices of the volume, or to all."""
    images, frames = series.datasets, None
    if series.stack is not None and slices is not None:
        numbers = series.stack.frame_numbers
        if numbers is None:
            images = tuple(images[k] for k in slices)
        else:
            frames = sorted(numbers[k] for k in slices)
    return [Reference(image.SOPClassUID, image.SOPInstanceUID, frames) for image in images]


def identify(made: Dataset, series: SourceSeries) -> None:
    """Write patient and study into an object as in the source; empty what is not stated."""
    source = series.datasets[0]
    for keyword in PATIENT_AND_STUDY:
        if keyword in source:
            made[keyword] = source[keyword]
    for keyword in BLANK:
        if keyword not in source:
            setattr(made, keyword, None)
