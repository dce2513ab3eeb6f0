"""The headers of a series are those of the slices that `read_scan` stacks, in its order."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scan_builders import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    dicom_datasets,
    head_volume,
    multiframe,
    save,
    zipped,
)

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.io import read_scan
from pathology_screen.io.source import IMAGE, PATIENT_AND_STUDY, read_source_series


def positions_in(scan):
    """ImagePositionPatient of every slice of a scan by its affine, LPS+."""
    corners = np.array([[0, 0, k, 1] for k in range(scan.voxels.shape[2])]).T
    return (scan.affine @ corners)[:3].T * [-1, -1, 1]


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, (-1, 0, 0, 0, 1, 0)])
@pytest.mark.parametrize("kind", ["folder", "zip", "list"])
def test_series_in_the_order_of_its_slices(tmp_path, orientation, kind):
    datasets = dicom_datasets(head_volume(), orientation=orientation)
    path = save([datasets[k] for k in (3, 0, 7, 5, 1, 2, 6, 4)], tmp_path / "series")
    if kind == "list":
        path = sorted(path.iterdir())
    if kind == "zip":
        path = zipped(path.iterdir(), tmp_path / "s.zip")
    scan, source = read_scan(path), read_source_series(path)
    instances = [dataset.SOPInstanceUID for dataset in source.datasets]
    assert instances == [one.SOPInstanceUID for one in datasets]
    stack = source.stack
    assert stack.shape == scan.voxels.shape and stack.frame_numbers is None
    np.testing.assert_array_equal(stack.affine, scan.affine)
    np.testing.assert_allclose(stack.positions, positions_in(scan), atol=1e-6)
    np.testing.assert_array_equal(stack.positions, [one.ImagePositionPatient for one in datasets])
    assert stack.orientation.tolist() == list(orientation)
    assert stack.pixel_spacing.tolist() == [1.5, 1.25] and stack.slice_thickness == 2.0


def test_multiframe_says_which_frame_is_which_slice(tmp_path):
    datasets = dicom_datasets(head_volume())[::-1]
    path = multiframe(datasets, tmp_path / "e.dcm")
    scan, source = read_scan(path), read_source_series(path)
    assert len(source.datasets) == 1
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    chosen = [frames[number - 1] for number in source.stack.frame_numbers]
    of_slices = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in chosen]
    np.testing.assert_array_equal(source.stack.positions, np.array(of_slices, float))
    np.testing.assert_allclose(source.stack.positions, positions_in(scan), atol=1e-6)


def test_nothing_is_read_but_what_is_listed(tmp_path):
    datasets = dicom_datasets(head_volume(), PatientComments="CANARY", ProtocolName="CANARY")
    source = read_source_series(save(datasets, tmp_path / "series"))
    for dataset in source.datasets:
        assert {element.keyword for element in dataset} <= {*PATIENT_AND_STUDY, *IMAGE}
        assert dataset.PatientName == datasets[0].PatientName


def test_refused_series(tmp_path):
    datasets = dicom_datasets(head_volume())
    del datasets[3]
    path = save(datasets, tmp_path / "series")
    with pytest.raises(InputError, match="missing_slice"):
        read_source_series(path)
    source = read_source_series(path, stacked=False)
    assert source.stack is None and len(source.datasets) == 7


def test_unstacked_series_leaves_out_what_cannot_be_read(tmp_path):
    path = save(dicom_datasets(head_volume()), tmp_path / "series")
    (path / "IM0002").write_bytes((path / "IM0002").read_bytes()[:200])
    (path / "notes.txt").write_text("notes")
    assert len(read_source_series(path, stacked=False).datasets) == 7
    for file in path.iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="no_image"):
        read_source_series(path, stacked=False)


@pytest.mark.parametrize("stacked", [True, False])
def test_one_series_of_several(tmp_path, stacked):
    series = [dicom_datasets(head_volume()) for _ in range(2)]
    for k, datasets in enumerate(series):
        save(datasets, tmp_path / "study", f"S{k}IM{{:04d}}".format)
    with pytest.raises(InputError, match="several_series"):
        read_source_series(tmp_path / "study", stacked=stacked)
    uid = series[1][0].SeriesInstanceUID
    source = read_source_series(tmp_path / "study", uid, stacked=stacked)
    assert {dataset.SeriesInstanceUID for dataset in source.datasets} == {uid}


def test_what_is_no_source(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), "int16"), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(ConfigError, match="NIfTI"):
        read_source_series(tmp_path / "scan.nii.gz")
    nameless = save(dicom_datasets(head_volume(), StudyInstanceUID=""), tmp_path / "nameless")
    with pytest.raises(ConfigError, match="StudyInstanceUID"):
        read_source_series(nameless)
    with pytest.raises(InputError):
        read_source_series(tmp_path / "missing")
