"""The headers of a series, and the attributes of each frame of an enhanced object."""

import json
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from limits import cheap, refusal
from pydicom import uid
from scan_builders import (
    AXIAL,
    CORONAL,
    TILTED,
    check_same_scan,
    dicom_datasets,
    head_volume,
    multiframe,
    save,
)

from pathology_screen.errors import InputError
from pathology_screen.io import read_scan
from pathology_screen.io.headers import series_facts
from pathology_screen.io.source import read_source_series

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def test_series_of_a_folder_is_chosen(tmp_path):
    first, second = head_volume(), head_volume(slices=5)
    save(dicom_datasets(first, series_uid="1.2.3"), tmp_path / "study")
    save(dicom_datasets(second, series_uid="1.2.4"), tmp_path / "study", "other{}.dcm".format)
    listed = r"several_series.*1\.2\.3 \(8 images\), 1\.2\.4 \(5 images\)"
    with pytest.raises(InputError, match=listed):
        read_scan(tmp_path / "study")
    assert refusal(tmp_path / "study", series_uid="1.2").code == "series_not_found"
    scan = read_scan(tmp_path / "study", series_uid="1.2.4")
    np.testing.assert_array_equal(scan.voxels, second.transpose(2, 1, 0))
    assert (scan.source["series_uid"], scan.source["file_count"]) == ("1.2.4", 5)


def test_files_that_are_no_images_are_counted(tmp_path):
    folder = save(dicom_datasets(head_volume()), tmp_path / "Müller – série 1" / "sub folder")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".DS_Store").write_bytes(b"hidden: not counted")
    (folder / "DICOMDIR").write_bytes((PYDICOM_FILES / "dicomdirtests" / "DICOMDIR").read_bytes())
    (folder / "report").write_bytes((PYDICOM_FILES / "test-SR.dcm").read_bytes())
    scan = read_scan(folder.parent)
    assert (scan.source["file_count"], scan.source["ignored_file_count"]) == (8, 3)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("undefined_length", [True, False])
def test_a_million_empty_items_are_refused(tmp_path, syntax, undefined_length):
    datasets = dicom_datasets(head_volume(2), transfer_syntax=syntax)
    datasets[0].ReferencedImageSequence = [pydicom.Dataset()]
    datasets[0]["ReferencedImageSequence"].is_undefined_length = undefined_length
    file = save(datasets, tmp_path) / "IM0000"
    little = syntax.is_little_endian
    item = (b"\xfe\xff\0\xe0" if little else b"\xff\xfe\xe0\0") + bytes(4)
    before, after = file.read_bytes().split(item, 1)
    if not undefined_length:
        before = before[:-4] + struct.pack("<I" if little else ">I", 8 * 1_000_000)
    file.write_bytes(before + item * 1_000_000 + after)
    with cheap():
        error = refusal(tmp_path)
    assert error.code == "too_large" and "items" in error.detail


def compressed(image):
    image.compress(uid.JPEGLSLossless, generate_instance_uid=False)


def without_dimensions(image):
    del image.DimensionIndexSequence
    del image.DimensionOrganizationSequence


def without_content(image):
    without_dimensions(image)
    for frame in image.PerFrameFunctionalGroupsSequence:
        del frame.FrameContentSequence


def without_index_values(image):
    for frame in image.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence = [pydicom.Dataset()]


@pytest.fixture
def oblique():
    """Slices of an oblique scan, rescaled."""
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -7}
    return dicom_datasets(head_volume(6, 64, 48), orientation=TILTED, **rescale)


@pytest.mark.parametrize(
    "change",
    [lambda image: None, compressed, without_dimensions, without_content, without_index_values],
)
def test_enhanced_multiframe_equals_the_series(tmp_path, oblique, change):
    plain = read_scan(save(oblique, tmp_path / "s"))
    path = multiframe(oblique[::-1], tmp_path / "e.dcm")
    image = pydicom.dcmread(path)
    change(image)
    image.save_as(path)
    scan = read_scan(path)
    check_same_scan(scan, plain)
    assert scan.source["file_count"] == 1


@pytest.mark.parametrize("syntax", [None, uid.JPEGLSLossless])
def test_series_of_objects_of_one_frame(tmp_path, oblique, syntax):
    plain = read_scan(save(oblique, tmp_path / "s"))
    paths = [multiframe([one], tmp_path / f"m/{k}") for k, one in enumerate(oblique)]
    frames, series = [pydicom.dcmread(path) for path in paths], uid.generate_uid()
    for frame in frames:
        frame.SeriesInstanceUID = series
        if syntax:
            frame.compress(syntax, generate_instance_uid=False)
    save(frames[::-1], tmp_path / "e")
    scan, source = read_scan(tmp_path / "e"), read_source_series(tmp_path / "e")
    check_same_scan(scan, plain)
    assert scan.source["file_count"] == 6 and source.stack.frame_numbers is None
    instances = [one.SOPInstanceUID for one in source.datasets]
    assert instances == [frame.SOPInstanceUID for frame in frames]


def test_objects_that_are_not_one_volume_are_refused(tmp_path):
    """A frame without a position; and an object of several frames beside others."""
    datasets = dicom_datasets(head_volume())
    parts = (datasets, datasets[:4], datasets[4:5])
    lacking, volume, single = (
        pydicom.dcmread(multiframe(part, tmp_path / "e.dcm")) for part in parts
    )
    del lacking.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    assert refusal(save([lacking], tmp_path / "lacking")).code == "missing_geometry"
    single.SeriesInstanceUID = volume.SeriesInstanceUID
    assert refusal(save([volume, single], tmp_path / "s")).code == "not_3d"


def test_enhanced_facts_come_from_the_functional_groups(tmp_path):
    path = multiframe(dicom_datasets(head_volume(2)), tmp_path / "e.dcm")
    dataset = pydicom.dcmread(path)
    timing, echo, administered = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    timing.RepetitionTime, echo.EffectiveEchoTime = 2300.0, 2.5
    administered.ContrastBolusAgentAdministered = "NO"
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = [timing], [echo]
    shared.ContrastBolusUsageSequence = [administered]
    dataset.AcquisitionContrast, dataset.ContrastBolusAgentSequence = "T1", [pydicom.Dataset()]
    dataset.save_as(path)
    source = read_scan(path).source
    assert (source["repetition_time"], source["effective_echo_time"]) == (2300.0, 2.5)
    assert source["acquisition_contrast"] == "T1"
    assert source["sop_class"].startswith("Legacy Converted Enhanced MR")
    assert "contrast_agent" not in source  # of the plan, not of this frame


@pytest.mark.parametrize("one_object", [False, True])
def test_facts_of_a_series_that_another_program_made_a_volume_of(tmp_path, one_object):
    def facts(datasets, name):
        if one_object:
            return series_facts(multiframe(datasets, tmp_path / name / "0.dcm").parent)
        return series_facts(save(datasets, tmp_path / name))

    datasets = dicom_datasets(head_volume(), ContrastBolusAgent="CANARY gadolinium")
    found = facts(datasets, "whole")
    assert found["contrast_agent"] is True
    assert found["echo_time"] == 4.6 and found["modality"] == "MR"
    assert "CANARY" not in json.dumps(found)
    assert facts(datasets[:1], "one")["modality"] == "MR"
    with pytest.raises(InputError, match="missing_slice.*1 missing between"):
        facts(datasets[:3] + datasets[4:], "lacking")


def test_slices_that_do_not_say_where_they_lie_or_lie_in_two_directions_are_refused(tmp_path):
    datasets = dicom_datasets(head_volume())
    del datasets[2].ImagePositionPatient
    two = [dicom_datasets(head_volume(), orientation=one) for one in (AXIAL, CORONAL)]
    crossed = two[0][:4] + two[1][4:]
    for wrong, code in ((datasets, "missing_geometry"), (crossed, "mixed_orientation")):
        with pytest.raises(InputError, match=code):
            series_facts(save(wrong, tmp_path / code))
