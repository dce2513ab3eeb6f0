"""Codes of what no standard scheme has a code for, in a private coding scheme."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from pathology_screen import __version__

DESIGNATOR = "99PSCREEN"

MEANINGS = {
    "score": "Anomaly score",
    "map": "Anomaly map value",
    "score_threshold": "Threshold of the anomaly score",
    "map_threshold": "Threshold of the anomaly map",
    "false_positives": "False positive rate that the score threshold is for",
    "p_value": "Conformal p-value of the anomaly score among healthy people",
    "healthy": "Number of healthy people of the calibration",
    "regions": "Number of regions above the map threshold",
    "plane": "Level z of the screened plane in MNI152 space",
    "dice": "Overlap (Dice) of the brain with that of the template",
    "correlation": "Local correlation of the brain with that of the template",
    "region": "Region above the anomaly map threshold",
    "outcome": "Screening outcome",
    "suspicious": "Score above the threshold; not a diagnosis",
    "normal": "Score not above the threshold; disease is not excluded",
    "not_assessable": "Not assessable; no score",
    "reason": "Reason for which the scan is not assessable",
    "warning": "Warning about the scan",
}
"""Code value -> code meaning."""


def code(value: str) -> CodedConcept:
    """Return a code of the private scheme, a key of `MEANINGS`."""
    return CodedConcept(value, DESIGNATOR, MEANINGS[value])


def coding_schemes() -> list[CodingSchemeIdentificationItem]:
    """Describe the private scheme to who reads an object that uses it."""
    name = "pathology_screen: measurements of unsupervised anomaly detection"
    return [
        CodingSchemeIdentificationItem(
            DESIGNATOR, name, version=__version__, responsible_organization="pathology_screen"
        )
    ]
