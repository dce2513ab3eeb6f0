"""The anomaly map as a Parametric Map with the frames of the source that the plane cuts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom import PlanePositionSequence, VOILUTFunctionValues, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pathology_screen.outputs.dicom.codes import code, coding_schemes
from pathology_screen.outputs.dicom.maker import BODY_PART, Maker

SERIES_NUMBER = 9001


def make_parametric_map(
    images: Sequence[Dataset],
    frames: np.ndarray,
    positions: Sequence[PlanePositionSequence],
    upper: float,
    maker: Maker,
) -> ParametricMap:
    """Make the Parametric Map.

    Args:
        images: the source, see `reference_images`.
        frames: (N, rows, columns) float32.
        positions: of the frames, each that of one of the source.
        upper: of the range of values; the display window is 0 to this.
        maker: of the result.
    """
    mapping = RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly map, without unit; 0 also beside the plane",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, upper),
        quantity_definition=code("map"),
    )
    window = VOILUTTransformation(
        upper / 2, upper, voi_lut_function=VOILUTFunctionValues.LINEAR_EXACT
    )
    made = ParametricMap(
        images,
        frames.astype(np.float32, copy=False),
        **maker.instance(SERIES_NUMBER, "anomaly map"),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_label="ANOMALY_MAP",
        content_description="Anomaly map; 0 where the plane does not cut the scan",
        plane_positions=positions,
        coding_schemes=coding_schemes(),
    )
    made.BodyPartExamined = BODY_PART
    return made
