import zipfile

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_builders import head_volume

from pathology_screen.errors import ConfigError
from pathology_screen.geometry import axial_orientation
from pathology_screen.io import read_scan

AFFINE = np.array([[-1.0, 0, 0, 60], [0, 1.5, 0, -70], [0, 0, 2, -20], [0, 0, 0, 1]])
TILT = nib.eulerangles.euler2mat(0.1, -0.2, 0.15)  # radians about z, y, x


def save(path, voxels, affine=AFFINE):
    nib.save(nib.Nifti1Image(voxels, affine, dtype=voxels.dtype), path)
    return path


def patch(path, offset, *numbers):
    """Overwrite float32 numbers in the header of an uncompressed file, which nibabel would not
    write so."""
    data = bytearray(path.read_bytes())
    data[offset : offset + 4 * len(numbers)] = np.array(numbers, "<f4").tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_are_float32_in_every_sample_format(tmp_path, dtype, suffix):
    voxels = (head_volume() % 120).astype(dtype)
    scan = read_scan(save(tmp_path / f"scan{suffix}", voxels))
    assert scan.voxels.dtype == np.float32 and scan.affine.dtype == np.float64
    np.testing.assert_array_equal(scan.voxels, voxels)
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert scan.source == {
        "format": "nifti",
        "file_count": 1,
        "affine_source": "sform",
        "obliquity_deg": 0.0,
    }


def test_scaling_is_applied(tmp_path):
    voxels = head_volume().astype("int16")
    path = patch(save(tmp_path / "scan.nii", voxels), 112, 0.5, -3)  # scl_slope, scl_inter
    np.testing.assert_allclose(read_scan(path).voxels, 0.5 * voxels)  # the background is 0
    np.testing.assert_allclose(read_scan(path, level="middle").voxels, 0.5 * voxels[:, :, 8:9])


@pytest.mark.parametrize("slope", [0, np.nan])
def test_slope_of_zero_or_nan_means_unscaled(tmp_path, slope):
    voxels = head_volume().astype("int16")
    path = patch(save(tmp_path / "scan.nii", voxels), 112, slope, 5)
    np.testing.assert_array_equal(read_scan(path).voxels, voxels)


def test_nifti2_and_big_endian(tmp_path):
    voxels = head_volume()
    nib.save(nib.Nifti2Image(voxels, AFFINE), tmp_path / "two.nii.gz")
    nib.save(
        nib.Nifti1Image(voxels, AFFINE, nib.Nifti1Header(endianness=">")), tmp_path / "big.nii"
    )
    for name in ("two.nii.gz", "big.nii"):
        scan = read_scan(tmp_path / name)
        np.testing.assert_array_equal(scan.voxels, voxels)
        np.testing.assert_allclose(scan.affine, AFFINE)


def test_sform_goes_before_qform_and_either_may_be_alone(tmp_path):
    image = nib.Nifti1Image(head_volume(), None)
    shifted = AFFINE + np.eye(4, k=3) * 5
    image.set_qform(AFFINE, code=1)
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "q.nii")
    scan = read_scan(tmp_path / "q.nii")
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
    assert scan.source["affine_source"] == "qform"
    image.set_sform(shifted, code=4)
    nib.save(image, tmp_path / "both.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "both.nii").affine, shifted)


def test_units_of_the_header_become_millimetres(tmp_path):
    image = nib.Nifti1Image(head_volume(), AFFINE / [[1000], [1000], [1000], [1]])
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "scan.nii").affine, AFFINE, rtol=1e-5)


def test_trailing_axes_of_one_voxel_are_dropped(tmp_path):
    voxels = head_volume()
    for path in (
        save(tmp_path / "a.nii", voxels[..., None]),
        save(tmp_path / "b.nii.gz", voxels[..., None, None]),
    ):
        np.testing.assert_array_equal(read_scan(path).voxels, voxels)
        np.testing.assert_array_equal(read_scan(path, level="middle").voxels, voxels[:, :, 8:9])


def test_single_axial_slice(tmp_path):
    voxels = head_volume()[:, :, :1]
    flat = read_scan(save(tmp_path / "a.nii", voxels[:, :, 0]), axial_slice=True)
    thick = read_scan(save(tmp_path / "b.nii", voxels), axial_slice=True, level="middle")
    np.testing.assert_array_equal(flat.voxels, voxels)
    np.testing.assert_array_equal(thick.voxels, voxels)
    np.testing.assert_allclose(thick.affine, AFFINE)
    coronal_storage = AFFINE[:, [0, 2, 1, 3]]
    other = read_scan(
        save(tmp_path / "c.nii", voxels.transpose(0, 2, 1), coronal_storage), axial_slice=True
    )
    assert other.voxels.shape == (8, 1, 20)  # as stored: the second axis is the patient's


@settings(max_examples=25, deadline=None)
@given(axes=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3), tilted=st.booleans())
def test_middle_level_of_any_storage_order(tmp_path_factory, axes, flips, tilted):
    affine = AFFINE.copy()
    affine[:3, :3] = (TILT if tilted else np.eye(3)) @ np.diag([1.0, 1.5, 2.0])
    affine = affine[:, [*axes, 3]] @ np.diag([*(-1.0 if flip else 1.0 for flip in flips), 1.0])
    path = save(tmp_path_factory.mktemp("n") / "scan.nii", head_volume(), affine)
    whole, middle = read_scan(path), read_scan(path, level="middle")
    axis, direction = axial_orientation(affine)
    n = whole.voxels.shape[axis]
    k = n // 2 if direction > 0 else n - 1 - n // 2
    np.testing.assert_array_equal(middle.voxels, whole.voxels.take([k], axis))
    start = np.zeros(4)
    start[[axis, 3]] = k, 1
    np.testing.assert_allclose(middle.affine[:, 3], affine @ start, atol=1e-4)
    assert middle.volume_shape == whole.volume_shape
    np.testing.assert_array_equal(middle.volume_affine, whole.affine)


def test_one_nifti_in_a_zip_or_folder(tmp_path):
    path = save(tmp_path / "scan.nii.gz", head_volume())
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.write(path, "folder/scan.nii.gz")
    (tmp_path / "scan.nii").mkdir()
    path.rename(tmp_path / "scan.nii" / path.name)
    in_folder = read_scan(tmp_path / "scan.nii")
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.zip").voxels, in_folder.voxels)
    np.testing.assert_array_equal(in_folder.voxels, head_volume())


def test_unknown_level_is_a_wrong_option(tmp_path):
    with pytest.raises(ConfigError, match="level"):
        read_scan(save(tmp_path / "scan.nii", head_volume()), level="top")


@pytest.mark.needs_shared
def test_real_scans(shared_data):
    brain = read_scan(shared_data / "oasis" / "sub-N000_T1w.nii.gz")
    assert brain.voxels.shape == (176, 208, 25)
    head = read_scan(shared_data / "whole_head" / "IXI012-HH-1211_T1.nii.gz")
    middle = read_scan(shared_data / "whole_head" / "IXI012-HH-1211_T1.nii.gz", level="middle")
    assert head.voxels.shape == (120, 120, 90)  # stored with inferior-superior as its second axis
    np.testing.assert_array_equal(middle.voxels, head.voxels[:, 60:61])
