"""How a DICOM image was acquired, as far as it says: facts without the patient's data."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.uid import UID

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
"""Free text, which may name the patient: searched for `WORDS`, never kept."""
WORDS = {
    "t1": r"[a-z]{0,3}t1|mp-?2?rage|bravo|f?spgr|tfl3d",
    "t2": r"[a-z]{0,3}t2",
    "flair": r"\w*flair|dark.?fluid|tirm",
    "stir": r"stir",
    "proton_density": r"pd(w|\b)|proton",
    "diffusion": r"dwi|dti|diff|adc|trace",
    "susceptibility": r"swi|swan|venobold|hemo",
    "angiography": r"tof|mra\b|mrv\b|angio",
    "perfusion": r"perf|asl\b|dsc|dce|cbf|cbv",
    "functional": r"bold|fmri|ep2d|resting",
    "localizer": r"loc\b|localizer|localiser|scout|survey",
    "contrast_agent": r"gd\b|gad|km\b|ce\b|c ?\+|with contrast|w/ ?contrast|post.?(contrast|gd)|contrast.?enhanced",
    "perhaps_contrast_agent": r"post\b|contrast\b|kontrast",
    "no_contrast_agent": r"pre\b|non?\b|without|w/?o\b|nativ|plain|ohne|sans|before|unenhanced|pregd|precontrast",
}
"""Entries of `described_as`, and what begins a word of the description where they apply (\\b: and ends it)."""

CONTRAST_KEYWORDS = ("ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusIngredient")
NO_AGENT = {"", "NO", "NONE", "N", "NA", "N/A", "0", "WITHOUT", "NO CONTRAST", "NO AGENT"}
FACT_KEYWORDS = (*FACTS.values(), *DESCRIPTIONS, *CONTRAST_KEYWORDS, "ContrastBolusAgentAdministered")
"""The attributes to read for `acquisition_facts`."""
LONGEST_TEXT = 64


def acquisition_facts(datasets: Sequence[Dataset]) -> dict[str, Any]:
    """Collect the facts from the data sets that describe one frame.

    Returns:
        `FACTS` as text, finite numbers or lists of them, in the units of DICOM (ms, tesla, degrees, mm), the SOP class
        by its name; `described_as`, the entries of `WORDS` that the description of the series holds; and
        `contrast_agent: True` where one is named. What is absent, empty or of another kind is left out: it is unknown.
    """
    facts: dict[str, Any] = {}
    for name, keyword in FACTS.items():
        value = next((dataset[keyword].value for dataset in datasets if keyword in dataset), None)
        plain = _plain(value, keyword)
        if plain not in (None, "", []):
            facts[name] = plain
    if words := _described(" ; ".join(_text(dataset, keyword) for dataset in datasets for keyword in DESCRIPTIONS)):
        facts["described_as"] = words
    if _names_contrast_agent(datasets):
        facts["contrast_agent"] = True
    return facts


def _described(text: str) -> list[str]:
    """The entries of `WORDS` that a text holds."""
    text = text.lower().replace("_", " ").replace("+c", "c+").replace("+ c", "c+")
    return [name for name, pattern in WORDS.items() if re.search(rf"(?<![a-z0-9])(?:{pattern})", text)]


def _names_contrast_agent(datasets: Sequence[Dataset]) -> bool:
    if any(_text(dataset, "ContrastBolusAgentAdministered") == "NO" for dataset in datasets):
        return False  # of this frame
    named = [dataset.get(keyword) for keyword in CONTRAST_KEYWORDS for dataset in datasets]
    return any(str(value).strip().upper() not in NO_AGENT if isinstance(value, str) else value for value in named)


def _text(dataset: Dataset, keyword: str) -> str:
    """Text as it is stored: pydicom's conversion could put it into a warning."""
    element = dataset.get_item(keyword)
    value = element.value if element is not None and element.value else ""
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value)


def _plain(value: Any, keyword: str) -> Any:
    """A pydicom value as a type that JSON knows: finite numbers, text that steers no terminal, or lists of them; None
    where it is not of the kind that the attribute has."""
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
    return "".join(filter(str.isprintable, value))[:LONGEST_TEXT] if isinstance(value, str) else None
