"""The source's images as highdicom wants them: with references and geometry, and with nothing of the patient.

highdicom checks and logs what it is given of a patient, so it is given nothing: `identify` then writes patient and
study into the finished object as they stand in the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from highdicom import CoordinateSystemNames, PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from pydicom import Dataset

from pathology_screen.geometry import axial_orientation, spacing
from pathology_screen.io.source import IMAGE, PATIENT_AND_STUDY, SourceSeries, SourceStack

PATIENT = CoordinateSystemNames.PATIENT
BLANK = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyID"),
    *("AccessionNumber", "StudyDate", "StudyTime"),
)
"""What highdicom asks for; an object has them, empty or not."""


class Reference(NamedTuple):
    """A source image; its frames where it has several."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_numbers: list[int] | None


def reference_images(series: SourceSeries) -> list[Dataset]:
    """Describe the images of a series to highdicom, in the order of the volume's slices or as one multi-frame image."""
    images = []
    for dataset in series.datasets:
        image = Dataset()
        image.StudyInstanceUID = dataset.StudyInstanceUID
        for keyword in IMAGE:
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
    measures = PixelMeasuresSequence(stack.pixel_spacing.tolist(), stack.slice_thickness or step, step)
    orientation = PlaneOrientationSequence(PATIENT, stack.orientation.tolist())
    positions = [PlanePositionSequence(PATIENT, position.tolist()) for position in stack.positions]
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
    images[0].SharedFunctionalGroupsSequence, images[0].PerFrameFunctionalGroupsSequence = [shared], frames


def frames_of(volume: np.ndarray, stack: SourceStack) -> np.ndarray:
    """Turn a volume (I, J, K) into frames (K, rows, columns), one for each of `reference_images`, in their order."""
    frames = np.ascontiguousarray(volume.transpose(2, 1, 0))
    if stack.frame_numbers is None:
        return frames
    return frames[np.argsort(stack.frame_numbers)]


def references_at(series: SourceSeries, levels: Sequence[int]) -> list[Reference]:
    """Refer to the source images that axial levels lie in or, in a coronal or sagittal series, cross."""
    stack = series.stack
    slices: Sequence[int] = range(len(series.datasets))
    if stack is not None:
        slices = range(stack.shape[2])
        axis, direction = axial_orientation(stack.affine)
        if axis == 2:
            slices = sorted(level if direction > 0 else stack.shape[2] - 1 - level for level in levels)
        if stack.frame_numbers is not None:
            image = series.datasets[0]
            frames = sorted(stack.frame_numbers[k] for k in slices)
            return [Reference(image.SOPClassUID, image.SOPInstanceUID, frames)]
    images = [series.datasets[k] for k in slices]
    return [Reference(image.SOPClassUID, image.SOPInstanceUID, None) for image in images]


def identify(made: Dataset, series: SourceSeries) -> None:
    """Write patient and study into an object as they stand in the source, and empty what the source does not state."""
    for keyword in PATIENT_AND_STUDY:
        if keyword in series.datasets[0]:
            made[keyword] = series.datasets[0][keyword]
    for keyword in BLANK:
        if keyword not in series.datasets[0]:
            setattr(made, keyword, None)
