"""How a DICOM image was acquired, as far as it says: facts without the patient's data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.uid import UID

from pathology_screen.io.description import denies_agent, described

FACTS = {
    "sop_class": "SOPClassUID",
    "modality": "Modality",
    "image_type": "ImageType",
    "frame_type": "FrameType",
    "complex_component": "ComplexImageComponent",
    "manufacturer": "Manufacturer",
    "manufacturer_model": "ManufacturerModelName",
    "field_strength": "MagneticFieldStrength",
    "body_part": "BodyPartExamined",
    "scanning_sequence": "ScanningSequence",
    "sequence_variant": "SequenceVariant",
    "scan_options": "ScanOptions",
    "acquisition_type": "MRAcquisitionType",
    "acquisition_contrast": "AcquisitionContrast",
    "echo_pulse_sequence": "EchoPulseSequence",
    "inversion_recovery": "InversionRecovery",
    "angiography": "AngioFlag",
    "echo_time": "EchoTime",
    "effective_echo_time": "EffectiveEchoTime",
    "repetition_time": "RepetitionTime",
    "inversion_time": "InversionTime",
    "inversion_times": "InversionTimes",
    "flip_angle": "FlipAngle",
    "slice_thickness": "SliceThickness",
    "burned_in_annotation": "BurnedInAnnotation",
    "lossy_compression": "LossyImageCompression",
}
"""Entries of `Scan.source`, and the attributes that they are copied from."""

DESCRIPTIONS = ("SeriesDescription", "ProtocolName")
"""Free text, which may name the patient: see `io.description`."""
AGENT_TEXTS = ("ContrastBolusAgent", "ContrastBolusIngredient", "ContrastBolusRoute")
AGENT_NUMBERS = ("ContrastBolusVolume", "ContrastBolusTotalDose")
AGENT_SEQUENCES = ("ContrastBolusAgentSequence", "ContrastBolusAdministrationRouteSequence")
CONTRAST_KEYWORDS = (*AGENT_TEXTS, *AGENT_NUMBERS, *AGENT_SEQUENCES)
"""Any of these names an agent, unless it says that there was none."""
FACT_KEYWORDS = (
    *FACTS.values(),
    *DESCRIPTIONS,
    *CONTRAST_KEYWORDS,
    "ContrastBolusAgentAdministered",
)
"""The attributes to read for `acquisition_facts`."""
LONGEST_TEXT = 64


def acquisition_facts(datasets: Sequence[Dataset]) -> dict[str, Any]:
    """Collect the facts from the data sets that describe one frame.

    Returns:
        `FACTS` as text, finite numbers or lists of them, in the units of DICOM (ms, tesla, degrees,
        mm), the SOP class by its name; `described_as`, what the descriptions of the series say (see
        `io.description`); and
        `contrast_agent: True` where one is named. What is absent, empty or of another kind is left
            out: it is unknown.
    """
    facts: dict[str, Any] = {}
    for name, keyword in FACTS.items():
        value = next((dataset[keyword].value for dataset in datasets if keyword in dataset), None)
        plain = _plain(value, keyword)
        if plain not in (None, "", []):
            facts[name] = plain
    if words := described(
        _text(dataset, keyword) for dataset in datasets for keyword in DESCRIPTIONS
    ):
        facts["described_as"] = words
    if _names_contrast_agent(datasets):
        facts["contrast_agent"] = True
    return facts


def _names_contrast_agent(datasets: Sequence[Dataset]) -> bool:
    if any(_text(dataset, "ContrastBolusAgentAdministered") == "NO" for dataset in datasets):
        return False  # of this frame
    texts = [_text(dataset, keyword) for dataset in datasets for keyword in AGENT_TEXTS]
    numbers = [_text(dataset, keyword) for dataset in datasets for keyword in AGENT_NUMBERS]
    codes = [
        item
        for dataset in datasets
        for keyword in AGENT_SEQUENCES
        for item in dataset.get(keyword) or []
    ]
    meanings = [_text(item, "CodeMeaning") for item in codes]
    named = any(meaning == "" or not denies_agent(meaning) for meaning in meanings)
    return named or any(not denies_agent(text) for text in (*texts, *numbers))


def _text(dataset: Dataset, keyword: str) -> str:
    """Text as it is stored: pydicom's conversion could put it into a warning."""
    element = dataset.get_item(keyword)
    value = element.value if element is not None and element.value else ""
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value)


def _plain(value: Any, keyword: str) -> Any:
    """A pydicom value as a type that JSON knows: finite numbers, text that steers no terminal, or
    lists of them; None where it is not of the kind that the attribute has."""
    if isinstance(value, MultiValue):
        parts = [_plain(part, keyword) for part in value]
        return None if None in parts or dictionary_VM(keyword) == "1" else parts
    if dictionary_VR(keyword) in ("DS", "FD"):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
        return number if math.isfinite(number) else None
    if isinstance(value, UID):
        value = value.name
    return (
        "".join(filter(str.isprintable, value))[:LONGEST_TEXT] if isinstance(value, str) else None
    )
