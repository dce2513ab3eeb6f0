"""What the attributes of a DICOM image, or of a series, say of its acquisition."""

import json
from io import BytesIO

import pydicom
import pytest
from scan_builders import AXIAL, CORONAL, dicom_datasets, head_volume, multiframe, save

from pathology_screen.errors import InputError
from pathology_screen.io.acquisition import acquisition_facts, series_facts


def facts(**attributes):
    """Of an image as it is read: its values are bytes until somebody asks for them."""
    file = BytesIO()
    dicom_datasets(head_volume(1), **attributes)[0].save_as(file, enforce_file_format=True)
    file.seek(0)
    return acquisition_facts([pydicom.dcmread(file)])


@pytest.mark.parametrize(
    "series, protocol, words",
    [
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
    return {"ContrastBolusAgentSequence": [item]}


AGENT = [{"ContrastBolusAgent": "Gadovist"}, {"ContrastBolusAgent": "CANARY"}, coded("Gadoterate")]
AGENT += [
    {"ContrastBolusVolume": 7.5},
    {"ContrastBolusTotalDose": 15},
    {"ContrastBolusRoute": "IV"},
]
NONE = [{"ContrastBolusAgent": "NOT ADMINISTERED", "ContrastBolusVolume": 0}, coded("None")]
NONE += [{"ContrastBolusAgent": ""}, {"ContrastBolusRoute": "NONE"}]


@pytest.mark.parametrize("attributes", [*AGENT, *NONE])
def test_contrast_agent_is_one_that_is_named(attributes):
    assert facts(**attributes).get("contrast_agent", False) is (attributes in AGENT)


@pytest.fixture(params=[False, True], ids=["slices", "multi-frame"])
def facts_of_series(request, tmp_path):
    """Function that writes a series, as slices or as one object, and gives its facts."""

    def facts(datasets):
        folder = tmp_path / "series"
        multiframe(datasets, folder / "0.dcm") if request.param else save(datasets, folder)
        return series_facts(folder)

    return facts


def test_facts_of_a_series_are_those_of_the_acquisition(facts_of_series):
    found = facts_of_series(dicom_datasets(head_volume(), ContrastBolusAgent="CANARY gadolinium"))
    assert found["contrast_agent"] is True
    assert found["echo_time"] == 4.6 and found["modality"] == "MR"
    assert "CANARY" not in json.dumps(found)


def test_a_stack_that_lacks_a_slice_is_refused(facts_of_series):
    datasets = dicom_datasets(head_volume())
    del datasets[3]
    with pytest.raises(InputError, match="missing_slice.*1 missing between"):
        facts_of_series(datasets)


def test_slices_that_do_not_say_where_they_lie_or_lie_in_two_directions_are_refused(tmp_path):
    datasets = dicom_datasets(head_volume())
    del datasets[2].ImagePositionPatient
    two = [dicom_datasets(head_volume(), orientation=one) for one in (AXIAL, CORONAL)]
    crossed = two[0][:4] + two[1][4:]
    for wrong, code in ((datasets, "missing_geometry"), (crossed, "mixed_orientation")):
        with pytest.raises(InputError, match=code):
            series_facts(save(wrong, tmp_path / code))
