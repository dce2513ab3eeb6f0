"""Objects refer to the source's images that the plane cuts, and stand in their study."""

import logging

import numpy as np
import pydicom
import pytest
from outputs.dicom.result_builders import make_result, read, whole
from pydicom.uid import ExplicitVRLittleEndian
from scan_builders import SAGITTAL, dicom_datasets, head_volume, multiframe, save

from pathology_screen.io.source import PATIENT_AND_STUDY
from pathology_screen.outputs.dicom import NAMES, write_dicom


def test_sources_are_the_images_that_the_plane_cuts_and_the_map(tmp_path, report, out):
    datasets = dicom_datasets(head_volume())
    source = save(datasets, tmp_path / "axial")
    result = make_result(source, tilt=8)
    cut = np.flatnonzero(result.map_volume.any(axis=(0, 1)))
    group = whole(report(result, source))
    uids = [image.referenced_sop_instance_uid for image in group.source_images]
    made = {path.stem: pydicom.dcmread(path) for path in out.iterdir()}
    expected = [datasets[k].SOPInstanceUID for k in cut]
    assert 1 < len(cut) < 8 and uids == [*expected, made["parametric_map"].SOPInstanceUID]
    (study,) = made["report"].CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == datasets[0].StudyInstanceUID
    counts = {
        one.SeriesInstanceUID: len(one.ReferencedSOPSequence)
        for one in study.ReferencedSeriesSequence
    }
    assert counts == {
        datasets[0].SeriesInstanceUID: 8,
        made["parametric_map"].SeriesInstanceUID: 1,
        made["segmentation"].SeriesInstanceUID: 1,
    }
    shown = made["overlay"].SourceImageSequence
    assert [image.ReferencedSOPInstanceUID for image in shown] == expected


@pytest.mark.parametrize(("row", "number"), [(1, 4), (-1, 3)], ids=["to superior", "to inferior"])
def test_the_slice_that_an_upright_plane_lies_in(tmp_path, report, row, number):
    """1 mm above the middle of eight slices of 2 mm lies the fifth from below."""
    datasets = dicom_datasets(head_volume(), orientation=(row, 0, 0, 0, 1, 0))
    source = save(datasets, tmp_path / "axial")
    group = whole(report(make_result(source, tilt=0, off=1), source))
    uids = [image.referenced_sop_instance_uid for image in group.source_images[:-1]]
    assert uids == [datasets[number].SOPInstanceUID]


def test_an_axial_plane_crosses_every_image_of_a_sagittal_series(tmp_path, report):
    datasets = dicom_datasets(head_volume(), orientation=SAGITTAL)
    source = save(datasets, tmp_path / "sagittal")
    group = whole(report(make_result(source), source))
    uids = {image.referenced_sop_instance_uid for image in group.source_images[:-1]}
    assert uids == {dataset.SOPInstanceUID for dataset in datasets}


def test_frames_of_a_multiframe_source(tmp_path, report, out):
    source = multiframe(dicom_datasets(head_volume())[::-1], tmp_path / "source" / "e.dcm")
    group = whole(report(make_result(source, tilt=0, off=1), source))
    frames = pydicom.dcmread(source).PerFrameFunctionalGroupsSequence
    heights = [frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in frames]
    expected = int(np.argsort(heights)[4]) + 1
    assert list(group.source_images[0].referenced_frame_numbers) == [expected]
    (shown,) = pydicom.dcmread(out / "overlay.dcm").SourceImageSequence
    assert shown.ReferencedFrameNumber == expected


HIDDEN = (
    *("PatientComments", "AdditionalPatientHistory", "OtherPatientIDs", "InstitutionName"),
    *("OperatorsName", "ImageComments", "ProtocolName", "StationName", "PatientAddress"),
)


@pytest.mark.parametrize("whole_object", [False, True])
def test_patient_and_study_are_those_of_the_source_and_nothing_else_is(
    tmp_path, write, out, whole_object
):
    study = {"StudyDescription": "MRI HEAD", "StudyDate": "20260102", "StudyTime": "101112.5"}
    hidden = dict.fromkeys(HIDDEN, "CANARY-HIDDEN") | {"RequestAttributesSequence": []}
    datasets = dicom_datasets(head_volume(), StudyID="7", **study, **hidden)
    folder = tmp_path / "source"
    write(multiframe(datasets, folder / "e.dcm") if whole_object else save(datasets, folder))
    assert sorted(read(out)) == sorted(NAMES)
    for name, made in read(out).items():
        for keyword in PATIENT_AND_STUDY:
            assert made.get(keyword) == datasets[0].get(keyword), (name, keyword)
        space = None if "report" in name else datasets[0].FrameOfReferenceUID
        assert made.get("FrameOfReferenceUID") == space
        assert made.SeriesDescription.startswith("RESEARCH ONLY: ")
        assert made.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert b"CANARY-HIDDEN" not in (out / name).read_bytes()


@pytest.mark.parametrize(
    "charset, name",
    [
        (None, "Doe^Jane"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("NOT A CHARSET", "Doe^Jane"),
    ],
)
@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_names_in_any_character_set(tmp_path, write, out, charset, name):
    datasets = dicom_datasets(head_volume())
    for dataset in datasets:
        if charset is not None:
            dataset.SpecificCharacterSet = charset
        dataset.PatientName = name
    write(save(datasets, tmp_path / "series"))
    for made in read(out).values():
        assert str(made.PatientName) == name
        assert made.get("SpecificCharacterSet") == charset


# warnings of pydicom, when the scan is built
@pytest.mark.filterwarnings("ignore:Invalid value", "ignore:The value")
def test_what_is_invalid_in_the_source_is_copied_and_told_to_nobody(
    tmp_path, out, caplog, capfd, recwarn
):
    caplog.set_level(logging.DEBUG)
    wrong = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
    long = dict.fromkeys(("PatientID", "StudyDescription"), "CANARY" * 12)
    invalid = dict.fromkeys(wrong, "CANARY")
    datasets = dicom_datasets(head_volume(), **invalid, **long)
    source = save(datasets, tmp_path / "series")
    result = make_result(source)
    for record in (caplog, recwarn):
        record.clear()
    capfd.readouterr()
    write_dicom(result, source, out)
    said = [caplog.text, *capfd.readouterr(), *(str(warning.message) for warning in recwarn.list)]
    assert not [text for text in said if "CANARY" in text]
    with pydicom.config.disable_value_validation():
        for made in read(out).values():
            assert {keyword: made[keyword].value for keyword in invalid} == invalid


def test_what_the_source_lacks_is_empty(tmp_path, write, out):
    datasets = dicom_datasets(head_volume())
    lacking = ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID")
    for dataset in datasets:
        for keyword in (*lacking, "StudyTime"):
            del dataset[keyword]
        del dataset.PositionReferenceIndicator, dataset.SliceThickness, dataset.SeriesNumber
        dataset.NumberOfFrames = 1  # allowed in an object of one frame
    write(save(datasets, tmp_path / "series"))
    for made in read(out).values():
        assert not made.PatientName and made.StudyTime == ""
