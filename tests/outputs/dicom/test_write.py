"""What is copied from the source, what is not, and what is refused."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from outputs.dicom.result_builders import make_refused, make_result, read
from scan_builders import dicom_datasets, head_volume, save

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.outputs.dicom import NAMES, write_dicom


def test_objects_are_in_series_of_their_own(series, write, out):
    write(series())
    objects = read(out).values()
    assert len({made.SeriesInstanceUID for made in objects}) == 4
    assert len({made.SeriesNumber for made in objects}) == 4
    assert {made.Modality for made in objects} == {"OT", "SEG", "SR"}


def test_what_an_earlier_result_left_is_removed(series, out):
    source = series()
    assert [path.name for path in write_dicom(make_result(source), source, out)] == list(NAMES)
    (out / "notes.txt").write_text("mine")
    assert [path.name for path in write_dicom(make_refused(), source, out)] == ["report.dcm"]
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "report.dcm"]


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
