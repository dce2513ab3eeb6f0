"""The source's images as highdicom wants them, references and geometry without the patient; and in
their place the anomaly map as a Parametric Map, the regions as a Segmentation.

highdicom checks and logs what it is given of a patient, so it is given nothing: patient and study
are copied into the finished object as they stand in the source.
"""

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pathology_screen import __version__
from pathology_screen.geometry import spacing
from pathology_screen.io.source import IMAGE, SourceSeries, SourceStack
from pathology_screen.outputs.dicom.maker import ABNORMAL, FAMILY, PACKAGE, SCHEMES, Maker, code
from pathology_screen.result import Region, ScreeningResult
from pathology_screen.space import PLANE_SHAPE, put_back

MAP_NUMBER, REGIONS_NUMBER = 9001, 9002
"""SeriesNumber of both."""
Reference = tuple[str, str, list[int] | None]
"""SOP class and SOP instance of a source image, and its frames where it has several."""
PATIENT = hd.CoordinateSystemNames.PATIENT
BLANK = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
    *("StudyID", "AccessionNumber", "StudyDate", "StudyTime"),
)
"""What highdicom asks for; an object has them, empty or not."""


def copy(source: Dataset, made: Dataset, keywords: Sequence[str]) -> None:
    """Copy these attributes, as far as they are there; empty what of `BLANK` is not copied."""
    for keyword in keywords:
        if keyword in source:
            made[keyword] = source[keyword]
    for keyword in BLANK:
        if keyword not in keywords or keyword not in source:
            setattr(made, keyword, None)


def reference_images(series: SourceSeries) -> list[Dataset]:
    """Describe the images of a series to highdicom, in order, or as one multi-frame image."""
    images, stack = [Dataset() for _ in series.datasets], series.stack
    for source, image in zip(series.datasets, images):
        copy(source, image, ("StudyInstanceUID", *IMAGE))
        if stack is not None:
            image.Columns, image.Rows = stack.shape[:2]
    if stack is None:
        return images
    step = float(spacing(stack.affine)[2])
    thickness = stack.slice_thickness or step
    measures = hd.PixelMeasuresSequence(stack.pixel_spacing.tolist(), thickness, step)
    orientation = hd.PlaneOrientationSequence(PATIENT, stack.orientation.tolist())
    positions = positions_of(stack, range(len(stack.positions)))
    if stack.frame_numbers is None:
        for image, position in zip(images, positions):
            for group in (measures, orientation, position):
                image.update(group[0])
        return images
    shared, frames = Dataset(), [Dataset() for _ in positions]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = measures, orientation
    for number, position in zip(stack.frame_numbers, positions):
        frames[number - 1].PlanePositionSequence = position
    images[0].SharedFunctionalGroupsSequence = [shared]
    images[0].PerFrameFunctionalGroupsSequence = frames
    return images


def cut_slices(result: ScreeningResult, shape: tuple[int, int, int]) -> list[int]:
    """Which slices, along the third axis of a scan (I, J, K), the screened plane cuts."""
    one, affine = result.slice, result.affine
    if one is None or affine is None or one.mni_affine is None or one.plane_mm is None:
        return list(range(shape[2]))
    to_scan = one.affine @ np.linalg.inv(one.mni_affine)
    _, cut = put_back(np.ones(PLANE_SHAPE), to_scan, one.plane_mm, shape, affine)
    return np.flatnonzero(cut.any(axis=(0, 1))).tolist()


def positions_of(stack: SourceStack, slices: Sequence[int]) -> list[hd.PlanePositionSequence]:
    """Where slices of a volume lie."""
    return [hd.PlanePositionSequence(PATIENT, stack.positions[k].tolist()) for k in slices]


def references_to(series: SourceSeries, slices: Sequence[int] | None = None) -> list[Reference]:
    """Refer to the source images of slices of the volume, or to all."""
    images, frames = series.datasets, None
    if series.stack is not None and slices is not None:
        numbers = series.stack.frame_numbers
        if numbers is None:
            images = tuple(images[k] for k in slices)
        else:
            frames = sorted(numbers[k] for k in slices)
    return [(image.SOPClassUID, image.SOPInstanceUID, frames) for image in images]


def make_parametric_map(
    frames: np.ndarray, upper: float, maker: Maker, **placed: Any
) -> hd.pm.ParametricMap:
    """Make the Parametric Map of frames (N, rows, columns), float32, whose range and display window
    end at `upper`; `placed` are the `source_images` and the `plane_positions` of the frames."""
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly map, without unit; 0 also beside the plane",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, upper),
        quantity_definition=code("map"),
    )
    exact = hd.VOILUTFunctionValues.LINEAR_EXACT
    return hd.pm.ParametricMap(
        pixel_array=frames.astype(np.float32, copy=False),
        **maker.instance(MAP_NUMBER, "anomaly map"),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(upper / 2, upper, voi_lut_function=exact)],
        content_label="ANOMALY_MAP",
        content_description="Anomaly map; 0 where the plane does not cut the scan",
        coding_schemes=SCHEMES,
        **placed,
    )


def make_segmentation(
    frames: np.ndarray, regions: Sequence[Region], maker: Maker, **placed: Any
) -> Segmentation:
    """Make the Segmentation of frames of labels (N, rows, columns), uint16, likewise: one segment a
    region (of which there is one at least), numbered by its label; empty frames are left out."""
    by = (maker.title, FAMILY, __version__, PACKAGE, maker.parameters)
    segments = [
        SegmentDescription(
            segment_number=region.label,
            segment_label=f"Region {region.label}",
            segmented_property_category=ABNORMAL,
            segmented_property_type=code("region"),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(*by),
            tracking_uid=maker.tracking_uid(region.label),
            tracking_id=f"Region {region.label}",
        )
        for region in regions
    ]
    return Segmentation(
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        **maker.instance(REGIONS_NUMBER, "regions above anomaly threshold"),
        content_label="ANOMALY_REGIONS",
        content_description="Regions in which the anomaly map exceeds its threshold",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        coding_schemes=SCHEMES,
        **placed,
    )
