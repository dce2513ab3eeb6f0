"""Who made an object, and by which algorithm: the same words in every object of a result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from highdicom import UID, AlgorithmIdentificationSequence
from highdicom.sr import AlgorithmIdentification
from pydicom.sr.codedict import codes

from pathology_screen import __version__
from pathology_screen.registry import METHODS
from pathology_screen.result import ScreeningResult

PACKAGE = "pathology_screen"
BODY_PART = "BRAIN"
FAMILY = codes.cid7162.ArtificialIntelligence


class Maker:
    """The software, weights and calibration behind a result, in the terms of DICOM.

    Args:
        result: whose `provenance` tells them.
        series_uid: SeriesInstanceUID of the source.
    """

    def __init__(self, result: ScreeningResult, series_uid: str) -> None:
        self.result, self.series_uid = result, series_uid
        method = METHODS.get(result.provenance.get("method", ""))
        self.title = method.title if method else "unknown method"
        self.calibration = str(result.provenance.get("calibration_id", "none"))
        self.weights = str(result.provenance.get("identity", {}).get("weights_sha256", "none"))

    def instance(self, number: int, description: str) -> dict[str, Any]:
        """Arguments that make an object of highdicom the only one of a new series, labelled as
        research."""
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

    @property
    def parameters(self) -> Mapping[str, str]:
        return {"weights_sha256": self.weights, "calibration_id": self.calibration}

    @property
    def algorithm(self) -> AlgorithmIdentificationSequence:
        """For images."""
        return AlgorithmIdentificationSequence(
            self.title, FAMILY, __version__, PACKAGE, dict(self.parameters)
        )

    @property
    def algorithm_content(self) -> AlgorithmIdentification:
        """For reports (TID 4019)."""
        parameters = [f"{name}={value}" for name, value in self.parameters.items()]
        return AlgorithmIdentification(self.title, __version__, parameters, FAMILY, PACKAGE)

    @property
    def device_uid(self) -> UID:
        """The same for the same version and weights."""
        return _derived_uid(PACKAGE, __version__, self.weights)

    def tracking_uid(self, label: int = 0) -> UID:
        """UID of a region, or with 0 of the result as a whole; the same each time the same result
        is written."""
        return _derived_uid(self._fingerprint, str(label))

    @cached_property
    def _fingerprint(self) -> str:
        result = self.result
        voxels = (
            b""
            if result.map_volume is None
            else hashlib.sha256(result.map_volume.tobytes()).digest()
        )
        said = [
            self.series_uid,
            self.weights,
            self.calibration,
            result.outcome,
            result.code,
            result.pixel_threshold,
        ]
        return hashlib.sha256(repr(said).encode() + voxels).hexdigest()


def _derived_uid(*parts: str) -> UID:
    return UID.from_uuid(str(uuid5(NAMESPACE_OID, "\0".join(parts))))
