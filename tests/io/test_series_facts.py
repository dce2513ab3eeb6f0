"""What the headers of a series say of a volume that another program made of it."""

import json

import pytest
from scan_builders import AXIAL, CORONAL, dicom_datasets, head_volume, multiframe, save

from pathology_screen.errors import InputError
from pathology_screen.io.series_facts import series_facts


@pytest.fixture(params=[False, True], ids=["slices", "multi-frame"])
def facts(request, tmp_path):
    """Function that writes a series, as slices or as one object, and gives its facts."""

    def facts(datasets):
        folder = tmp_path / "series"
        multiframe(datasets, folder / "0.dcm") if request.param else save(datasets, folder)
        return series_facts(folder)

    return facts


def test_facts_are_those_of_the_acquisition(facts):
    found = facts(dicom_datasets(head_volume(), ContrastBolusAgent="CANARY gadolinium"))
    assert found["contrast_agent"] is True
    assert found["echo_time"] == 4.6 and found["modality"] == "MR"
    assert "CANARY" not in json.dumps(found)


def test_a_stack_that_lacks_a_slice_is_refused(facts):
    datasets = dicom_datasets(head_volume())
    del datasets[3]
    with pytest.raises(InputError, match="missing_slice.*1 missing between"):
        facts(datasets)


def test_slices_that_do_not_say_where_they_lie_or_lie_in_two_directions_are_refused(tmp_path):
    datasets = dicom_datasets(head_volume())
    del datasets[2].ImagePositionPatient
    two = [dicom_datasets(head_volume(), orientation=one) for one in (AXIAL, CORONAL)]
    crossed = two[0][:4] + two[1][4:]
    for wrong, code in ((datasets, "missing_geometry"), (crossed, "mixed_orientation")):
        with pytest.raises(InputError, match=code):
            series_facts(save(wrong, tmp_path / code))
