"""How a DICOM image was acquired, as far as it says: facts without the patient's data."""

import math
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.uid import UID

from pathology_screen.io.description import denies_agent, described, words

_FACTS = """
    sop_class=SOPClassUID modality=Modality image_type=ImageType frame_type=FrameType
    complex_component=ComplexImageComponent manufacturer=Manufacturer
    manufacturer_model=ManufacturerModelName field_strength=MagneticFieldStrength
    body_part=BodyPartExamined scanning_sequence=ScanningSequence sequence_variant=SequenceVariant
    scan_options=ScanOptions acquisition_type=MRAcquisitionType
    acquisition_contrast=AcquisitionContrast echo_pulse_sequence=EchoPulseSequence
    inversion_recovery=InversionRecovery angiography=AngioFlag echo_time=EchoTime
    effective_echo_time=EffectiveEchoTime repetition_time=RepetitionTime
    inversion_time=InversionTime inversion_times=InversionTimes flip_angle=FlipAngle
    slice_thickness=SliceThickness burned_in_annotation=BurnedInAnnotation
    lossy_compression=LossyImageCompression
"""
FACTS = dict(pair.split("=") for pair in words(_FACTS))
"""Entries of `Scan.source`, and the attributes that they are copied from."""
DESCRIPTIONS = ("SeriesDescription", "ProtocolName")
"""Free text, which may name the patient: see `io.description`."""
AGENT_VALUES = words("""
    ContrastBolusAgent ContrastBolusIngredient ContrastBolusRoute ContrastBolusVolume
    ContrastBolusTotalDose
""")
AGENT_SEQUENCES = ("ContrastBolusAgentSequence", "ContrastBolusAdministrationRouteSequence")
"""Any of these names an agent, unless it says that there was none."""
ADMINISTERED = "ContrastBolusAgentAdministered"
FACT_KEYWORDS = (*FACTS.values(), *DESCRIPTIONS, *AGENT_VALUES, *AGENT_SEQUENCES, ADMINISTERED)
"""The attributes to read for `acquisition_facts`."""
LONGEST_TEXT = 64


def acquisition_facts(datasets: Sequence[Dataset]) -> dict[str, Any]:
    """Collect the facts from the data sets that describe one frame: `FACTS` as text, finite numbers
    or lists of them, in the units of DICOM (ms, tesla, degrees, mm), the SOP class by its name;
    `described_as`, what the descriptions of the series say (see `io.description`); and
    `contrast_agent: True` where one is named. What is absent, empty or of another kind is left out:
    it is unknown."""
    facts: dict[str, Any] = {}
    for name, keyword in FACTS.items():
        value = next((dataset[keyword].value for dataset in datasets if keyword in dataset), None)
        plain = _plain(value, keyword)
        if plain not in (None, "", []):
            facts[name] = plain
    if found := described(_texts(datasets, *DESCRIPTIONS)):
        facts["described_as"] = found
    if _names_contrast_agent(datasets):
        facts["contrast_agent"] = True
    return facts


def _names_contrast_agent(datasets: Sequence[Dataset]) -> bool:
    if "NO" in _texts(datasets, ADMINISTERED):
        return False  # of this frame
    codes = [dataset.get(keyword) or [] for dataset in datasets for keyword in AGENT_SEQUENCES]
    meanings = _texts([item for items in codes for item in items], "CodeMeaning")
    texts = [*_texts(datasets, *AGENT_VALUES), *filter(None, meanings)]
    return "" in meanings or not all(map(denies_agent, texts))


def _texts(datasets: Sequence[Dataset], *keywords: str) -> list[str]:
    """Texts as they are stored: pydicom's conversion could put them into a warning."""
    elements = [dataset.get_item(keyword) for dataset in datasets for keyword in keywords]
    values = [element.value or "" if element is not None else "" for element in elements]
    return [
        value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value)
        for value in values
    ]


def _plain(value: Any, keyword: str) -> Any:
    """A value as JSON knows it: finite numbers, text that steers no terminal, or lists of them;
    None where it is not of the kind that the attribute has."""
    if isinstance(value, MultiValue):
        parts = [_plain(part, keyword) for part in value]
        return None if None in parts or dictionary_VM(keyword) == "1" else parts
    if dictionary_VR(keyword) in ("DS", "FD"):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
        return number if math.isfinite(number) else None
    text = value.name if isinstance(value, UID) else value
    return "".join(filter(str.isprintable, text))[:LONGEST_TEXT] if isinstance(text, str) else None
