"""A real series, oblique, with a retired form of the name and overlong numbers."""

import highdicom
import pydicom
import pytest
from outputs.dicom.result_builders import whole
from outputs.dicom.test_conformance import DCIODVFY, check
from outputs.dicom.test_images import check_references, check_round_trip
from outputs.dicom.test_structured_report import numbers


@pytest.mark.needs_shared
def test_real_series(shared_data, write, out):
    source = shared_data / "dicom_hanke_t1"
    result = write(source, block=40)
    check_round_trip(result, out)
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in source.iterdir()]
    check_references(images, out)
    for made in (pydicom.dcmread(path) for path in out.iterdir()):
        assert made.PatientName == images[0].PatientName
        assert made.StudyInstanceUID == images[0].StudyInstanceUID
    content = highdicom.sr.srread(out / "report.dcm").content
    assert numbers(whole(content))["Anomaly score"] == result.score
    peak = pydicom.dcmread(out / "parametric_map.dcm").pixel_array.max()
    assert peak == pytest.approx(result.regions[0].peak, rel=0.02)  # voxels lie between pixels
    if DCIODVFY:
        check(out, next(source.iterdir()))
