"""The conformance statement says what the code does."""

from pathlib import Path

from outputs.dicom.test_conformance import EXPECTED_ERRORS

from pathology_screen.io.source import PATIENT_AND_STUDY
from pathology_screen.outputs.dicom import (
    NAMES,
    parametric_map,
    secondary_capture,
    segmentation,
    structured_report,
)
from pathology_screen.outputs.dicom.codes import MEANINGS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "dicom.md"


def test_statement():
    text = PAGE.read_text("utf-8")
    modules = (parametric_map, segmentation, structured_report, secondary_capture)
    rows = [f"| `{name}` |" for name in NAMES] + [
        f"| {module.SERIES_NUMBER} |" for module in modules
    ]
    rows += [f"| `{value}` | {meaning} |" for value, meaning in MEANINGS.items()]
    rows += [
        *PATIENT_AND_STUDY,
        f"{structured_report.MOST_REGIONS} regions",
        f"{secondary_capture.LONGER_SIDE} pixels",
    ]
    rows.append(f"first {secondary_capture.NUMBERED} regions")
    assert not [row for row in rows if row not in text]
    assert EXPECTED_ERRORS or "without exceptions" in text
