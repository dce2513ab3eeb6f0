"""What is copied from the source, what is not, and what is refused."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from outputs.dicom.result_builders import make_refused, make_result, whole
from outputs.dicom.test_conformance import DCIODVFY, check
from outputs.dicom.test_images import check_references, check_round_trip
from outputs.dicom.test_structured_report import numbers
from scan_builders import dicom_datasets, head_volume, save

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.outputs.dicom import NAMES, write_dicom


def test_objects_are_in_series_of_their_own_and_tell_lossy_compression(series, write):
    made = write(series(LossyImageCompression="01", LossyImageCompressionRatio=8.5))[1]
    assert len({one.SeriesInstanceUID for one in made.values()}) == 4
    assert len({one.SeriesNumber for one in made.values()}) == 4
    assert {one.Modality for one in made.values()} == {"OT", "SEG", "SR"}
    assert made["parametric_map.dcm"].LossyImageCompression == "01"


def test_what_an_earlier_result_left_is_removed(series, out):
    source = series()
    assert [path.name for path in write_dicom(make_result(source), source, out)] == list(NAMES)
    (out / "notes.txt").write_text("mine")
    assert [path.name for path in write_dicom(make_refused(), source, out)] == ["report.dcm"]
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "report.dcm"]


def test_series_is_the_one_that_was_screened(tmp_path, write, out):
    folder = tmp_path / "study"
    first, second = (dicom_datasets(head_volume(), origin=(0, 0, mm)) for mm in (-50, -40))
    save(first, folder, "A{:04d}".format)
    save(second, folder, "B{:04d}".format)
    result = make_result([folder / f"B{k:04d}" for k in range(8)])
    references = write(folder, result)[1]["parametric_map.dcm"].ReferencedSeriesSequence
    assert [one.SeriesInstanceUID for one in references] == [second[0].SeriesInstanceUID]
    with pytest.raises(ConfigError, match="not the scan of this result"):
        write_dicom(result, folder, out, series_uid=first[0].SeriesInstanceUID)
    with pytest.raises(InputError) as error:
        write(folder, make_refused())
    assert error.value.code == "several_series"
    (report,) = write_dicom(make_refused(), folder, out, first[0].SeriesInstanceUID)
    assert pydicom.dcmread(report).StudyInstanceUID == first[0].StudyInstanceUID


def test_series_that_cannot_be_read_as_a_volume_has_a_report(tmp_path, write):
    datasets = [dataset for k, dataset in enumerate(dicom_datasets(head_volume())) if k != 3]
    source = save(datasets, tmp_path / "series")
    damaged = source / "IM0002"
    damaged.write_bytes(damaged.read_bytes()[:300])
    for dataset in datasets[3:]:
        del dataset.ImagePositionPatient
        dataset.save_as(source / f"IM{datasets.index(dataset):04d}", enforce_file_format=True)
    made = write(source, make_refused())[1]
    assert list(made) == ["report.dcm"]
    (study,) = made["report.dcm"].CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 6


@pytest.mark.parametrize("source", [{}, {"format": "nifti"}], ids=["unread", "read"])
def test_nifti_is_no_source(tmp_path, write, out, source):
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), "int16"), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(ConfigError, match="NIfTI"):
        write(tmp_path / "scan.nii.gz", make_refused(source=source))
    assert not out.exists()


def test_nothing_is_written_where_something_fails(series, write, out, monkeypatch):
    result = make_result(series("a"))
    with pytest.raises(ConfigError, match="not the scan of this result"):
        write_dicom(replace(result, source={}), series("b", origin=(0, 0, 0)), out)
    monkeypatch.setattr("pathology_screen.outputs.dicom.make_secondary_capture", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(series())
    assert not out.exists()


@pytest.mark.needs_shared
def test_real_series(shared_data, write, out):
    """Oblique, with a retired form of the name and overlong numbers."""
    source = shared_data / "dicom_hanke_t1"
    result, objects = write(source, block=40)
    check_round_trip(result, out)
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in source.iterdir()]
    check_references(images, out)
    for made in objects.values():
        assert made.PatientName == images[0].PatientName
        assert made.StudyInstanceUID == images[0].StudyInstanceUID
    assert numbers(whole(objects))["Anomaly score"] == result.score
    peak = objects["parametric_map.dcm"].pixel_array.max()
    assert peak == pytest.approx(result.regions[0].peak, rel=0.02)  # voxels lie between pixels
    if DCIODVFY:
        check(out, next(source.iterdir()))
