"""Who made an object, and in which codes."""

from dataclasses import replace

import numpy as np

from pathology_screen.errors import REFUSALS
from pathology_screen.outputs.dicom import NAMES
from pathology_screen.outputs.dicom.maker import MEANINGS, code


def test_codes_fit_their_attributes_and_every_refusal_has_one():
    for value, meaning in MEANINGS.items():
        assert len(value) <= 16 and len(meaning) <= 64
    assert all(code(refusal).value == refusal for refusal in REFUSALS)


def test_the_same_result_written_twice_is_recognised(series, write):
    source = series()
    result, first = write(source)
    changed = replace(result, map_volume=result.map_volume * np.float32(0.999))
    objects = [first, write(source, result)[1], write(source, changed)[1]]
    for name in NAMES:
        assert len({one[name].SOPInstanceUID for one in objects}) == 3
    segments = [one["segmentation.dcm"].SegmentSequence for one in objects]
    tracks = [[segment.TrackingUID for segment in one] for one in segments]
    assert tracks[0] == tracks[1] and not set(tracks[0]) & set(tracks[2])
    assert len(set(tracks[0])) == len(result.regions)
