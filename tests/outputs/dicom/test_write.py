"""What is copied from the source, what is not, and what is refused."""

import logging
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from outputs.dicom.result_builders import enhanced, make_refused, make_result
from pydicom.uid import ExplicitVRLittleEndian
from scan_builders import dicom_datasets, head_volume, save

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.io.source import PATIENT_AND_STUDY
from pathology_screen.outputs.dicom import NAMES, write_dicom

HIDDEN = (
    *("PatientComments", "AdditionalPatientHistory", "OtherPatientIDs", "InstitutionName"),
    *("OperatorsName", "ImageComments", "ProtocolName", "StationName", "PatientAddress"),
)


def read(folder: Path) -> dict[str, pydicom.Dataset]:
    return {path.name: pydicom.dcmread(path) for path in folder.iterdir()}


@pytest.mark.parametrize("multiframe", [False, True])
def test_patient_and_study_are_those_of_the_source_and_nothing_else_is(
    tmp_path, write, out, multiframe
):
    study = {"StudyDescription": "MRI HEAD", "StudyDate": "20260102", "StudyTime": "101112.5"}
    hidden = dict.fromkeys(HIDDEN, "CANARY-HIDDEN") | {"RequestAttributesSequence": []}
    datasets = dicom_datasets(head_volume(), StudyID="7", **study, **hidden)
    folder = tmp_path / "source"
    write(enhanced(datasets, folder / "e.dcm") if multiframe else save(datasets, folder))
    assert sorted(read(out)) == sorted(NAMES)
    for name, made in read(out).items():
        for keyword in PATIENT_AND_STUDY:
            assert made.get(keyword) == datasets[0].get(keyword), (name, keyword)
        space = None if "report" in name else datasets[0].FrameOfReferenceUID
        assert made.get("FrameOfReferenceUID") == space
        assert made.SeriesDescription.startswith("RESEARCH ONLY: ")
        assert made.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert b"CANARY-HIDDEN" not in (out / name).read_bytes()


def test_objects_are_in_series_of_their_own(series, write, out):
    write(series())
    objects = read(out).values()
    assert len({made.SeriesInstanceUID for made in objects}) == 4
    assert len({made.SeriesNumber for made in objects}) == 4
    assert {made.Modality for made in objects} == {"OT", "SEG", "SR"}


def test_the_same_result_written_twice_is_recognised(series, tmp_path):
    source = series()
    result = make_result(source)
    write_dicom(result, source, tmp_path / "a")
    write_dicom(result, source, tmp_path / "b")
    changed = replace(result, map_volume=result.map_volume * np.float32(0.999))
    write_dicom(changed, source, tmp_path / "c")
    a, b, c = (read(tmp_path / name) for name in "abc")
    for name in NAMES:
        assert len({one[name].SOPInstanceUID for one in (a, b, c)}) == 3
    segments = [one["segmentation.dcm"].SegmentSequence for one in (a, b, c)]
    tracks = [[segment.TrackingUID for segment in one] for one in segments]
    assert tracks[0] == tracks[1] and not set(tracks[0]) & set(tracks[2])
    assert len(set(tracks[0])) == len(result.regions)


def test_what_an_earlier_result_left_is_removed(series, out):
    source = series()
    assert [path.name for path in write_dicom(make_result(source), source, out)] == list(NAMES)
    (out / "notes.txt").write_text("mine")
    assert [path.name for path in write_dicom(make_refused(), source, out)] == ["report.dcm"]
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "report.dcm"]


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


def test_lossy_compression_of_the_source_is_told(series, write, out):
    write(series(LossyImageCompression="01", LossyImageCompressionRatio=8.5))
    assert read(out)["parametric_map.dcm"].LossyImageCompression == "01"


def test_series_is_the_one_that_was_screened(tmp_path, out):
    folder = tmp_path / "study"
    first, second = (dicom_datasets(head_volume(), origin=(0, 0, mm)) for mm in (-50, -40))
    save(first, folder, "A{:04d}".format)
    save(second, folder, "B{:04d}".format)
    result = make_result([folder / f"B{k:04d}" for k in range(8)])
    write_dicom(result, folder, out)
    references = read(out)["parametric_map.dcm"].ReferencedSeriesSequence
    assert [one.SeriesInstanceUID for one in references] == [second[0].SeriesInstanceUID]
    with pytest.raises(ConfigError, match="not the scan of this result"):
        write_dicom(result, folder, out, series_uid=first[0].SeriesInstanceUID)
    with pytest.raises(InputError) as error:
        write_dicom(make_refused(), folder, out)
    assert error.value.code == "several_series"
    write_dicom(make_refused(), folder, out, series_uid=first[0].SeriesInstanceUID)
    assert read(out)["report.dcm"].StudyInstanceUID == first[0].StudyInstanceUID


def test_series_that_cannot_be_read_as_a_volume_has_a_report(tmp_path, out):
    datasets = [dataset for k, dataset in enumerate(dicom_datasets(head_volume())) if k != 3]
    source = save(datasets, tmp_path / "series")
    damaged = source / "IM0002"
    damaged.write_bytes(damaged.read_bytes()[:300])
    for dataset in datasets[3:]:
        del dataset.ImagePositionPatient
        dataset.save_as(source / f"IM{datasets.index(dataset):04d}", enforce_file_format=True)
    assert [path.name for path in write_dicom(make_refused(), source, out)] == ["report.dcm"]
    (study,) = read(out)["report.dcm"].CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 6


@pytest.mark.parametrize(
    "result", [make_refused(), make_refused(source={"format": "nifti"})], ids=["unread", "read"]
)
def test_nifti_is_no_source(tmp_path, out, result):
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), "int16"), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(ConfigError, match="NIfTI"):
        write_dicom(result, tmp_path / "scan.nii.gz", out)
    assert not out.exists()


def test_other_scan_of_the_same_size(series, out):
    result = make_result(series("a"))
    with pytest.raises(ConfigError, match="not the scan of this result"):
        write_dicom(replace(result, source={}), series("b", origin=(0, 0, 0)), out)
    assert not out.exists()


def test_source_without_identity(series, write):
    with pytest.raises(ConfigError, match="StudyInstanceUID"):
        write(series(StudyInstanceUID=""))


def test_nothing_is_written_where_something_fails(series, write, out, monkeypatch):
    monkeypatch.setattr("pathology_screen.outputs.dicom.make_secondary_capture", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(series())
    assert not out.exists()
