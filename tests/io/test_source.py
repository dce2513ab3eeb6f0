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


def check_place(scan, stack):
    """ImagePositionPatient of every slice is that by the scan's affine, LPS+."""
    corners = np.array([[0, 0, k, 1] for k in range(scan.voxels.shape[2])]).T
    expected = (scan.affine @ corners)[:3].T * [-1, -1, 1]
    np.testing.assert_allclose(stack.positions, expected, atol=1e-6)
    np.testing.assert_array_equal(stack.affine, scan.affine)
    assert stack.shape == scan.voxels.shape


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, (-1, 0, 0, 0, 1, 0)])
@pytest.mark.parametrize("kind", ["folder", "zip", "list"])
def test_series_in_the_order_of_its_slices(tmp_path, orientation, kind):
    names = {"PatientComments": "CANARY", "ProtocolName": "CANARY"}
    datasets = dicom_datasets(head_volume(), orientation=orientation, **names)
    path = save([datasets[k] for k in (3, 0, 7, 5, 1, 2, 6, 4)], tmp_path / "series")
    if kind == "list":
        path = sorted(path.iterdir())
    if kind == "zip":
        path = zipped(path.iterdir(), tmp_path / "s.zip")
    source = read_source_series(path)
    stack = source.stack
    check_place(read_scan(path), stack)
    assert stack.frame_numbers is None
    np.testing.assert_array_equal(stack.positions, [one.ImagePositionPatient for one in datasets])
    assert stack.orientation.tolist() == list(orientation)
    assert stack.pixel_spacing.tolist() == [1.5, 1.25] and stack.slice_thickness == 2.0
    for dataset, one in zip(source.datasets, datasets, strict=True):
        assert dataset.SOPInstanceUID == one.SOPInstanceUID
        assert dataset.PatientName == one.PatientName
        assert {element.keyword for element in dataset} <= {*PATIENT_AND_STUDY, *IMAGE}


def test_multiframe_says_which_frame_is_which_slice(tmp_path):
    path = multiframe(dicom_datasets(head_volume())[::-1], tmp_path / "e.dcm")
    source = read_source_series(path)
    check_place(read_scan(path), source.stack)
    assert len(source.datasets) == 1
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    chosen = [frames[number - 1] for number in source.stack.frame_numbers]
    of_slices = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in chosen]
    np.testing.assert_array_equal(source.stack.positions, np.array(of_slices, float))


def test_a_series_that_is_not_stacked_may_be_one_that_is_refused(tmp_path):
    path = save(dicom_datasets(head_volume()), tmp_path / "series")
    (path / "IM0003").unlink()
    with pytest.raises(InputError, match="missing_slice"):
        read_source_series(path)
    source = read_source_series(path, stacked=False)
    assert source.stack is None and len(source.datasets) == 7
    (path / "IM0002").write_bytes((path / "IM0002").read_bytes()[:200])
    (path / "notes.txt").write_text("notes")
    assert len(read_source_series(path, stacked=False).datasets) == 6
    for file in path.iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="no_image"):
        read_source_series(path, stacked=False)


@pytest.mark.parametrize("stacked", [True, False])
def test_one_series_of_several(tmp_path, stacked):
    for uid in ("1.2.1", "1.2.2"):
        save(dicom_datasets(head_volume(), series_uid=uid), tmp_path, f"{uid}-{{}}".format)
    with pytest.raises(InputError, match="several_series"):
        read_source_series(tmp_path, stacked=stacked)
    source = read_source_series(tmp_path, "1.2.2", stacked=stacked)
    assert [dataset.SeriesInstanceUID for dataset in source.datasets] == ["1.2.2"] * 8


def test_what_is_no_source(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), "int16"), np.eye(4)), tmp_path / "scan.nii.gz")
    nameless = save(dicom_datasets(head_volume(), StudyInstanceUID=""), tmp_path / "nameless")
    for path, message in ((tmp_path / "scan.nii.gz", "NIfTI"), (nameless, "StudyInstanceUID")):
        with pytest.raises(ConfigError, match=message):
            read_source_series(path)
    with pytest.raises(InputError, match="not_found"):
        read_source_series(tmp_path / "missing")
