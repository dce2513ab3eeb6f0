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


@pytest.mark.parametrize(
    "series, protocol, words",
    [
        ("t1_mprage_sag_p2_iso", "", ["t1"]),
        ("AX T1 +C", "AX T1 +C", ["t1", "contrast_agent"]),
        ("CANARY^PATIENT", "", None),
        ("CANARY", "t2_tse", ["t2"]),
    ],
)
def test_descriptions_are_kept_as_words_of_a_fixed_list(series, protocol, words):
    found = facts(SeriesDescription=series, ProtocolName=protocol)
    assert found.get("described_as") == words and series not in json.dumps(found)


def coded(meaning):
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99TEST", meaning
    return [item]


@pytest.mark.parametrize(
    "known, attributes",
    [
        (True, {"ContrastBolusAgent": "Gadovist"}),
        (True, {"ContrastBolusAgent": "CANARY"}),
        (True, {"ContrastBolusVolume": 7.5}),
        (True, {"ContrastBolusTotalDose": 15}),
        (True, {"ContrastBolusRoute": "IV"}),
        (True, {"ContrastBolusAgentSequence": coded("Gadoterate")}),
        (False, {"ContrastBolusAgent": ""}),
        (False, {"ContrastBolusAgent": "NOT ADMINISTERED"}),
        (False, {"ContrastBolusVolume": 0}),
        (False, {"ContrastBolusRoute": "NONE"}),
        (False, {"ContrastBolusAgent": "NONE", "ContrastBolusVolume": 0}),
        (False, {"ContrastBolusAgentSequence": coded("None")}),
    ],
)
def test_contrast_agent_is_one_that_is_named(known, attributes):
    assert facts(**attributes).get("contrast_agent", False) is known
