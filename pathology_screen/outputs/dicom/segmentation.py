"""The regions as a Segmentation, one segment a region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom import ContentQualificationValues, PlanePositionSequence
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from pydicom import Dataset

from pathology_screen.outputs.dicom.codes import code, coding_schemes
from pathology_screen.outputs.dicom.maker import BODY_PART, Maker
from pathology_screen.result import Region

SERIES_NUMBER = 9002
CATEGORY = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")


def make_segmentation(
    images: Sequence[Dataset],
    frames: np.ndarray,
    positions: Sequence[PlanePositionSequence],
    regions: Sequence[Region],
    maker: Maker,
) -> Segmentation:
    """Make the Segmentation; its segment numbers are the labels of the regions.

    Args:
        images: the source, see `reference_images`.
        frames: (N, rows, columns) uint16 labels; those without any are left out.
        positions: of the frames, each that of one of the source.
        regions: at least one.
        maker: of the result.
    """
    segments = [
        SegmentDescription(
            segment_number=region.label,
            segment_label=f"Region {region.label}",
            segmented_property_category=CATEGORY,
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
        **maker.instance(SERIES_NUMBER, "regions above anomaly threshold"),
        content_label="ANOMALY_REGIONS",
        content_description="Regions in which the anomaly map exceeds its threshold",
        content_qualification=ContentQualificationValues.RESEARCH,
        plane_positions=positions,
        coding_schemes=coding_schemes(),
    )
    made.BodyPartExamined = BODY_PART
    return made
