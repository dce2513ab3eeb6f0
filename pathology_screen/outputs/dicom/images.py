"""The anomaly map as a Parametric Map and the regions as a Segmentation."""

from collections.abc import Sequence

import numpy as np
from highdicom import (
    ContentQualificationValues,
    PlanePositionSequence,
    VOILUTFunctionValues,
    VOILUTTransformation,
)
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pathology_screen.outputs.dicom.maker import ABNORMAL, BODY_PART, SCHEMES, Maker, code
from pathology_screen.result import Region

MAP_NUMBER, REGIONS_NUMBER = 9001, 9002
"""SeriesNumber of both."""


def make_parametric_map(
    images: Sequence[Dataset],
    frames: np.ndarray,
    positions: Sequence[PlanePositionSequence],
    upper: float,
    maker: Maker,
) -> ParametricMap:
    """Make the Parametric Map of frames (N, rows, columns), float32, of these positions, each that
    of one of `reference_images`; range and display window end at `upper`."""
    mapping = RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly map, without unit; 0 also beside the plane",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, upper),
        quantity_definition=code("map"),
    )
    exact = VOILUTFunctionValues.LINEAR_EXACT
    made = ParametricMap(
        images,
        frames.astype(np.float32, copy=False),
        **maker.instance(MAP_NUMBER, "anomaly map"),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(upper / 2, upper, voi_lut_function=exact)],
        content_label="ANOMALY_MAP",
        content_description="Anomaly map; 0 where the plane does not cut the scan",
        plane_positions=positions,
        coding_schemes=SCHEMES,
    )
    made.BodyPartExamined = BODY_PART
    return made


def make_segmentation(
    images: Sequence[Dataset],
    frames: np.ndarray,
    positions: Sequence[PlanePositionSequence],
    regions: Sequence[Region],
    maker: Maker,
) -> Segmentation:
    """Make the Segmentation of frames of labels (N, rows, columns), uint16, likewise: one segment a
    region (of which there is one at least), numbered by its label; empty frames are left out."""
    segments = [
        SegmentDescription(
            segment_number=region.label,
            segment_label=f"Region {region.label}",
            segmented_property_category=ABNORMAL,
            segmented_property_type=code("region"),
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=maker.algorithm,
            tracking_uid=maker.tracking_uid(region.label),
            tracking_id=f"Region {region.label}",
        )
        for region in regions
    ]
    made = Segmentation(
        images,
        frames,
        SegmentationTypeValues.BINARY,
        segments,
        **maker.instance(REGIONS_NUMBER, "regions above anomaly threshold"),
        content_label="ANOMALY_REGIONS",
        content_description="Regions in which the anomaly map exceeds its threshold",
        content_qualification=ContentQualificationValues.RESEARCH,
        plane_positions=positions,
        coding_schemes=SCHEMES,
    )
    made.BodyPartExamined = BODY_PART
    return made
