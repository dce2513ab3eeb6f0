"""dciodvfy, a validator of David Clunie's dicom3tools, finds no error that the source does not have
itself."""

import re
import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest
from outputs.dicom.result_builders import enhanced, make_refused, make_result
from scan_builders import CORONAL, SAGITTAL, dicom_datasets, head_volume, save

from pathology_screen.outputs.dicom import NAMES, write_dicom

DCIODVFY = shutil.which("dciodvfy")
pytestmark = pytest.mark.skipif(
    DCIODVFY is None, reason="dciodvfy is not installed (Debian: apt install dicom3tools)"
)

EXPECTED_ERRORS: dict[str, str] = {}
"""Errors that are accepted though the source does not have them -> reason. None so far; a new one needs its reason."""

UNKNOWN_TERM = "Unrecognized defined term = "
EXPECTED_WARNINGS = {
    f"{UNKNOWN_TERM}<99PSCREEN>": "the private coding scheme, which each object describes",
    f"(ImageType|FrameType).*{UNKNOWN_TERM}<QUANTITY>": "a measured quantity; the validator's list of terms lacks it",
    "(ImagePositionPatient|ImageOrientationPatient|FrameOfReferenceUID|PositionReferenceIndicator).*"
    "not present in standard DICOM IOD": "the standard now allows an Image Plane in a Secondary Capture",
}
"""Warnings about what is written on purpose -> why."""


def messages(path: Path, kind: str) -> set[str]:
    """Messages of one kind ("Error" or "Warning"), without the numbers of items of sequences."""
    run = subprocess.run([str(DCIODVFY), "-new", str(path)], capture_output=True, text=True)
    return {
        re.sub(r"\[\d+\]", "", line) for line in run.stderr.splitlines() if line.startswith(kind)
    }


def check(out: Path, source: Path):
    for path in out.iterdir():
        errors = messages(path, "Error") - messages(source, "Error")
        assert not [
            error
            for error in errors
            if not any(re.search(known, error) for known in EXPECTED_ERRORS)
        ]
        warnings = messages(path, "Warning") - messages(source, "Warning")
        assert not [
            warning
            for warning in warnings
            if not any(re.search(known, warning) for known in EXPECTED_WARNINGS)
        ]


@pytest.mark.parametrize("orientation", [CORONAL, SAGITTAL, (-1, 0, 0, 0, 1, 0)])
def test_series(series, out, orientation):
    source = series(orientation=orientation)
    assert len(write_dicom(make_result(source), source, out)) == len(NAMES)
    check(out, next(source.iterdir()))


def test_multiframe_source(tmp_path, out):
    source = enhanced(dicom_datasets(head_volume()), tmp_path / "source" / "e.dcm")
    write_dicom(make_result(source), source, out)
    check(out, source)


def test_refused_scan(series, out):
    source = series()
    write_dicom(make_refused(), source, out)
    check(out, next(source.iterdir()))


def test_source_that_lacks_what_it_need_not_have(tmp_path, out):
    datasets = dicom_datasets(head_volume(), PatientBirthDate="", PatientSex="", AccessionNumber="")
    source = save(datasets, tmp_path / "series")
    write_dicom(make_result(source), source, out)
    check(out, next(source.iterdir()))


def test_validator_is_not_blind(series, out):
    """An object without a required attribute is found out."""
    source = series()
    write_dicom(make_result(source), source, out)
    for path in out.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.SeriesInstanceUID
        dataset.save_as(path, enforce_file_format=True)
        with pytest.raises(AssertionError):
            check(out, next(source.iterdir()))
