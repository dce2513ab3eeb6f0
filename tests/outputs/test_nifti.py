import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pathology_screen.outputs.nifti import save_volume


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)


@pytest.mark.parametrize("name", ["map.nii.gz", "map.nii"])
def test_values_and_geometry_come_back(name, values, tmp_path):
    affine = np.array([[0, -1.5, 0, 30], [0, 0, 2, -40], [1.25, 0, 0, 7], [0, 0, 0, 1.0]])
    save_volume(values, affine, tmp_path / name)
    image = nib.load(tmp_path / name)
    assert image.get_data_dtype() == np.float32 and image.shape == values.shape
    assert np.array_equal(np.asarray(image.dataobj), values)
    assert np.array_equal(image.affine, affine) and image.header.get_xyzt_units()[0] == "mm"
    assert image.header["sform_code"] > 0
    assert np.isnan(image.header["scl_slope"]) or image.header["scl_slope"] in (0, 1)


@given(
    angles=st.tuples(*[st.floats(-30, 30)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_an_oblique_affine_comes_back_to_a_thousandth_of_a_millimetre(
    angles, spacing, origin, tmp_path_factory
):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = origin
    path = tmp_path_factory.mktemp("oblique") / "map.nii"
    save_volume(np.zeros((2, 2, 2)), affine, path)
    assert np.allclose(nib.load(path).affine, affine, atol=1e-3)


def test_the_header_holds_no_text(values, tmp_path):
    save_volume(values, np.eye(4), tmp_path / "map.nii.gz")
    header = nib.load(tmp_path / "map.nii.gz").header
    assert not any(
        header[field].tobytes().strip(b"\0")
        for field in ("descrip", "aux_file", "intent_name", "db_name")
    )
    assert not header.extensions


def test_labels_stay_whole_numbers(tmp_path):
    labels = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    save_volume(labels, np.eye(4), tmp_path / "labels.nii.gz")
    image = nib.load(tmp_path / "labels.nii.gz")
    assert image.get_data_dtype() == np.uint16 and np.array_equal(np.asarray(image.dataobj), labels)


def test_other_types_are_written_as_float32(tmp_path):
    save_volume(np.ones((2, 3, 4), dtype=bool), np.eye(4), tmp_path / "mask.nii.gz")
    image = nib.load(tmp_path / "mask.nii.gz")
    assert image.get_data_dtype() == np.float32 and np.asarray(image.dataobj).sum() == 24


def test_the_same_map_gives_the_same_bytes(values, tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        save_volume(values, np.eye(4), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    with gzip.open(tmp_path / "a.nii.gz") as file:
        file.read()
        assert file.mtime == 0


def test_a_failed_write_leaves_the_old_map(values, tmp_path, monkeypatch):
    save_volume(values, np.eye(4), tmp_path / "map.nii.gz")
    before = (tmp_path / "map.nii.gz").read_bytes()

    def half(image, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_filename", half)
    with pytest.raises(OSError, match="no space"):
        save_volume(values, np.eye(4), tmp_path / "map.nii.gz")
    assert (tmp_path / "map.nii.gz").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
