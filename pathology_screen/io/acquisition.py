"""How a DICOM image was acquired, as far as it says: facts without the patient's data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom import Dataset

FACTS = {
    "modality": "Modality",
    "image_type": "ImageType",
    "manufacturer": "Manufacturer",
    "manufacturer_model": "ManufacturerModelName",
    "field_strength": "MagneticFieldStrength",
    "body_part": "BodyPartExamined",
    "scanning_sequence": "ScanningSequence",
    "sequence_variant": "SequenceVariant",
    "scan_options": "ScanOptions",
    "acquisition_type": "MRAcquisitionType",
    "acquisition_contrast": "AcquisitionContrast",
    "echo_time": "EchoTime",
    "effective_echo_time": "EffectiveEchoTime",
    "repetition_time": "RepetitionTime",
    "inversion_time": "InversionTime",
    "flip_angle": "FlipAngle",
    "slice_thickness": "SliceThickness",
    "burned_in_annotation": "BurnedInAnnotation",
}
"""Entries of `Scan.source`, and the attributes that they are copied from."""


CONTRAST_KEYWORDS = ("ContrastBolusAgent", "ContrastBolusAgentSequence")
FACT_KEYWORDS = (*FACTS.values(), *CONTRAST_KEYWORDS)
"""The attributes to read for `acquisition_facts`."""


def acquisition_facts(datasets: Sequence[Dataset]) -> dict[str, Any]:
    """Collect the facts from the data sets that describe one frame.

    Returns:
        `FACTS` as text, numbers or lists of them, in the units of DICOM (ms, tesla, degrees, mm), and
        `contrast_agent: True` where one is named. What is absent or empty is left out: it is unknown.
    """
    facts: dict[str, Any] = {}
    for name, keyword in FACTS.items():
        value = next((dataset[keyword].value for dataset in datasets if keyword in dataset), None)
        if value not in (None, "", []):
            facts[name] = _plain(value)
    if any(dataset.get(keyword) for keyword in CONTRAST_KEYWORDS for dataset in datasets):
        facts["contrast_agent"] = True
    return facts


def _plain(value: Any) -> Any:
    """A pydicom value as a type that JSON knows."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Sequence):
        return [_plain(part) for part in value]
    return int(value) if isinstance(value, int) else float(value)
