"""Who made an object, by which algorithm, and in which codes."""

import hashlib
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from highdicom import UID
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

from pathology_screen import __version__
from pathology_screen.registry import METHODS
from pathology_screen.result import ScreeningResult

PACKAGE = "pathology_screen"
FAMILY = codes.cid7162.ArtificialIntelligence
ABNORMAL = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
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
"""Code value -> code meaning of what no standard scheme has a code for, in a private scheme."""
SCHEMES = [
    CodingSchemeIdentificationItem(
        DESIGNATOR,
        "pathology_screen: measurements of unsupervised anomaly detection",
        version=__version__,
        responsible_organization=PACKAGE,
    )
]
"""Describes the private scheme to who reads an object that uses it."""


def code(value: str) -> CodedConcept:
    """A code of the private scheme: a key of `MEANINGS`, or of `errors.REFUSALS`."""
    return CodedConcept(value, DESIGNATOR, MEANINGS.get(value, value.replace("_", " ")))


class Maker:
    """The software, weights and calibration behind a result, in the terms of DICOM; `series_uid` is
    that of the source."""

    def __init__(self, result: ScreeningResult, series_uid: str) -> None:
        self.result, provenance, volume = result, result.provenance, result.map_volume
        method = METHODS.get(provenance.get("method", ""))
        self.title = method.title if method else "unknown method"
        self.weights = str(provenance.get("identity", {}).get("weights_sha256", "none"))
        calibration = str(provenance.get("calibration_id", "none"))
        self.parameters = {"weights_sha256": self.weights, "calibration_id": calibration}
        self.device_uid = _derived_uid(PACKAGE, __version__, self.weights)
        said = [series_uid, *self.parameters.values(), result.outcome, result.code]
        voxels = b"" if volume is None else hashlib.sha256(volume.tobytes()).digest()
        told = repr([*said, result.pixel_threshold]).encode() + voxels
        self.fingerprint = hashlib.sha256(told).hexdigest()

    def instance(self, number: int, description: str) -> dict[str, Any]:
        """Arguments that make an object the only one of a new series, labelled as research."""
        return {
            "series_instance_uid": UID(),
            "series_number": number,
            "series_description": f"RESEARCH ONLY: {description}",
            "sop_instance_uid": UID(),
            "instance_number": 1,
            "manufacturer": PACKAGE,
            "manufacturer_model_name": f"{PACKAGE}, {self.title}",
            "software_versions": __version__,
            "device_serial_number": self.weights,
        }

    def tracking_uid(self, label: int = 0) -> UID:
        """UID of a region, or with 0 of the result; the same whenever it is written."""
        return _derived_uid(self.fingerprint, str(label))


def _derived_uid(*parts: str) -> UID:
    return UID.from_uuid(str(uuid5(NAMESPACE_OID, "\0".join(parts))))
