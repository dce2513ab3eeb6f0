"""A real series, oblique, with a retired form of the patient's name and numbers longer than DICOM
allows."""

import highdicom
import numpy as np
import pydicom
import pytest
from outputs.dicom.result_builders import make_result
from outputs.dicom.test_conformance import DCIODVFY, check
from outputs.dicom.test_geometry import check_references, check_round_trip
from outputs.dicom.test_structured_report import numbers, whole

from pathology_screen.outputs.dicom import write_dicom


@pytest.mark.needs_shared
def test_real_series(shared_data, out):
    source = shared_data / "dicom_hanke_t1"
    result = make_result(source, block=40)
    write_dicom(result, source, out)
    check_round_trip(result, out)
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in source.iterdir()]
    check_references(images, out)
    for made in (pydicom.dcmread(path) for path in out.iterdir()):
        assert (
            made.PatientName == images[0].PatientName
            and made.StudyInstanceUID == images[0].StudyInstanceUID
        )
    content = highdicom.sr.srread(out / "report.dcm").content
    assert numbers(whole(content))["Anomaly score"] == result.score
    peaks = [pydicom.dcmread(out / "parametric_map.dcm").pixel_array.max(), result.regions[0].peak]
    np.testing.assert_allclose(
        peaks[0], peaks[1], rtol=0.02
    )  # voxels lie between the pixels of the plane
    if DCIODVFY:
        check(out, next(source.iterdir()))
