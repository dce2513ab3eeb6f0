"""Who made an object, and in which codes."""

from dataclasses import replace

import numpy as np
from outputs.dicom.result_builders import make_result, read

from pathology_screen.errors import REFUSALS
from pathology_screen.outputs.dicom import NAMES, write_dicom
from pathology_screen.outputs.dicom.maker import MEANINGS, code


def test_codes_fit_their_attributes_and_every_refusal_has_one():
    for value, meaning in MEANINGS.items():
        assert len(value) <= 16 and len(meaning) <= 64
    assert all(code(refusal).value == refusal for refusal in REFUSALS)


def test_the_same_result_written_twice_is_recognised(series, tmp_path):
    source = series()
    result = make_result(source)
    write_dicom(result, source, tmp_path / "a")
    write_dicom(result, source, tmp_path / "b")
    changed = replace(result, map_volume=result.map_volume * np.float32(0.999))
    write_dicom(changed, source, tmp_path / "c")
    a, b, c = (read(tmp_path / name) for name in "abc")
    for name in NAMES:
        assert len({one[name].SOPInstanceUID for one in (a, b, c)}) == 3
    segments = [one["segmentation.dcm"].SegmentSequence for one in (a, b, c)]
    tracks = [[segment.TrackingUID for segment in one] for one in segments]
    assert tracks[0] == tracks[1] and not set(tracks[0]) & set(tracks[2])
    assert len(set(tracks[0])) == len(result.regions)
