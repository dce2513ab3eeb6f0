"""What the attributes of a DICOM image say of its acquisition."""

import json
from io import BytesIO

import pydicom
import pytest
from scan_builders import dicom_datasets, head_volume

from pathology_screen.io.acquisition import acquisition_facts


def facts(**attributes):
    """Of an image as it is read: its values are bytes until somebody asks for them."""
    file = BytesIO()
    dicom_datasets(head_volume(1), **attributes)[0].save_as(file, enforce_file_format=True)
    file.seek(0)
    return acquisition_facts([pydicom.dcmread(file)])


def test_descriptions_are_kept_as_words_of_a_fixed_list():
    said = {("AX T1 +C", "AX T1 +C"): ["t1", "contrast_agent"], ("CANARY^PATIENT", ""): None}
    for (series, protocol), words in (said | {("CANARY", "t2_tse"): ["t2"]}).items():
        found = facts(SeriesDescription=series, ProtocolName=protocol)
        assert found.get("described_as") == words and series not in json.dumps(found)


def coded(meaning):
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99TEST", meaning
    return {"ContrastBolusAgentSequence": [item]}


AGENT = [{"ContrastBolusAgent": "CANARY"}, {"ContrastBolusRoute": "IV"}, coded("Gadoterate")]
AGENT += [{"ContrastBolusVolume": 7.5}, {"ContrastBolusTotalDose": 15}]
NONE = [{"ContrastBolusAgent": "NOT ADMINISTERED", "ContrastBolusVolume": 0}, coded("None")]
NONE += [{"ContrastBolusAgent": ""}, {"ContrastBolusRoute": "NONE"}]


@pytest.mark.parametrize("attributes", [*AGENT, *NONE])
def test_contrast_agent_is_one_that_is_named(attributes):
    assert facts(**attributes).get("contrast_agent", False) is (attributes in AGENT)
