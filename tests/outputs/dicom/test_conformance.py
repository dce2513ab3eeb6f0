"""dciodvfy of dicom3tools finds no error that the source does not have itself."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from outputs.dicom.result_builders import make_refused
from scan_builders import CORONAL, SAGITTAL, dicom_datasets, head_volume, multiframe

import pathology_screen
from pathology_screen.io.source import PATIENT_AND_STUDY
from pathology_screen.outputs.dicom import NAMES, images, secondary_capture, structured_report
from pathology_screen.outputs.dicom.maker import MEANINGS

PACKAGE = Path(pathology_screen.__file__).parent
PAGE = Path(__file__).resolve().parents[3] / "docs" / "dicom.md"
DCIODVFY = shutil.which("dciodvfy")
needs_dciodvfy = pytest.mark.skipif(
    DCIODVFY is None, reason="dciodvfy is not installed (Debian: apt install dicom3tools)"
)
UNKNOWN_TERM = "Unrecognized defined term = "
EXPECTED_WARNINGS = {
    f"{UNKNOWN_TERM}<99PSCREEN>": "the private coding scheme, which each object describes",
    f"(ImageType|FrameType).*{UNKNOWN_TERM}<QUANTITY>": "a measured quantity; the validator's list "
    "of terms lacks it",
    "(ImagePositionPatient|ImageOrientationPatient|FrameOfReferenceUID|PositionReferenceIndicator)"
    ".*not present in standard DICOM IOD": "the standard now allows an Image Plane in a Secondary "
    "Capture",
}
"""Warnings about what is written on purpose -> why."""


def messages(path: Path, kind: str) -> set[str]:
    """Messages of one kind ("Error" or "Warning"), without the numbers of items of sequences."""
    run = subprocess.run([str(DCIODVFY), "-new", str(path)], capture_output=True, text=True)
    lines = [line for line in run.stderr.splitlines() if line.startswith(kind)]
    return {re.sub(r"\[\d+\]", "", line) for line in lines}


def check(out: Path, source: Path):
    for path in out.iterdir():
        assert not messages(path, "Error") - messages(source, "Error")
        warnings = messages(path, "Warning") - messages(source, "Warning")
        known = [re.compile(pattern) for pattern in EXPECTED_WARNINGS]
        assert not [one for one in warnings if not any(each.search(one) for each in known)]


@needs_dciodvfy
@pytest.mark.parametrize(
    "attributes",
    [
        *({"orientation": one} for one in (CORONAL, SAGITTAL, (-1, 0, 0, 0, 1, 0))),
        dict.fromkeys(("PatientBirthDate", "PatientSex", "AccessionNumber"), ""),
    ],
    ids=str,
)
def test_series(series, write, out, attributes):
    source = series(**attributes)
    assert sorted(write(source)[1]) == sorted(NAMES)
    check(out, next(source.iterdir()))


@needs_dciodvfy
def test_multiframe_source_and_refused_scan(series, tmp_path, write, out):
    source = multiframe(dicom_datasets(head_volume()), tmp_path / "source" / "e.dcm")
    write(source)
    check(out, source)
    source = series()
    write(source, make_refused())
    check(out, next(source.iterdir()))


@needs_dciodvfy
def test_validator_is_not_blind(series, write, out):
    """An object without a required attribute is found out."""
    source = series()
    for name, dataset in write(source)[1].items():
        del dataset.SeriesInstanceUID
        dataset.save_as(out / name, enforce_file_format=True)
        with pytest.raises(AssertionError):
            check(out, next(source.iterdir()))


def test_the_conformance_statement_says_what_the_code_does():
    text = " ".join(PAGE.read_text("utf-8").split())
    numbers = (images.MAP_NUMBER, images.REGIONS_NUMBER, structured_report.SERIES_NUMBER)
    rows = [f"| `{name}` |" for name in NAMES]
    rows += [f"| {number} |" for number in (*numbers, secondary_capture.SERIES_NUMBER)]
    rows += [f"`{value}`" for value in MEANINGS]
    rows += [*PATIENT_AND_STUDY, f"{structured_report.MOST_REGIONS} regions", "without exceptions"]
    rows.append(f"{secondary_capture.LONGER_SIDE} pixels")
    rows.append(f"first {secondary_capture.NUMBERED} regions")
    assert not [row for row in rows if row not in text]


def test_highdicom_is_imported_where_dicom_is_read_or_written():
    """MONAI Label's environment has none; elsewhere, writing is imported within functions alone."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        if {PACKAGE / "outputs" / "dicom", PACKAGE / "io"} & set(path.parents):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            top = ("highdicom", "pathology_screen.outputs.dicom")[: 1 + (node in tree.body)]
            if any(name.startswith(top) for name in names):
                wrong.append(path.name)
    assert not wrong
