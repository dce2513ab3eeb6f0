"""The anomaly map as a Parametric Map with the frames of the source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom import VOILUTFunctionValues, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pathology_screen.outputs.dicom.codes import code, coding_schemes
from pathology_screen.outputs.dicom.maker import BODY_PART, Maker

SERIES_NUMBER = 9001


def make_parametric_map(images: Sequence[Dataset], frames: np.ndarray, upper: float, maker: Maker) -> ParametricMap:
    """Make the Parametric Map.

    Args:
        images: the source, see `reference_images`.
        frames: (K, rows, columns) float32, one for each frame of the source.
        upper: of the range of values; the display window is 0 to this.
        maker: of the result.
    """
    mapping = RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly map, without unit; 0 also where nothing was screened",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, upper),
        quantity_definition=code("map"),
    )
    window = VOILUTTransformation(upper / 2, upper, voi_lut_function=VOILUTFunctionValues.LINEAR_EXACT)
    made = ParametricMap(
        images,
        frames.astype(np.float32, copy=False),
        **maker.instance(SERIES_NUMBER, "anomaly map"),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_label="ANOMALY_MAP",
        content_description="Anomaly map; 0 outside the screened slices",
        coding_schemes=coding_schemes(),
    )
    made.BodyPartExamined = BODY_PART
    return made
