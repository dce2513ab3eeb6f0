"""Tables, folders and scans of prepared cohorts."""

import nibabel as nib
import numpy as np
import pytest

from pathology_screen.cohorts.preparation import begin, listed, read_table, save_scan
from pathology_screen.errors import ConfigError, InputError

AFFINE = np.diag([1.0, 2.0, 5.0, 1.0])
SCAN = np.random.default_rng(0).uniform(0, 100, (6, 7, 8)).astype(np.float32)


def test_a_folder_goes_on_with_the_same_options_alone(tmp_path):
    folder = begin(tmp_path / "new" / "out", {"slices": 3, "source": "a"})
    assert begin(folder, {"source": "a", "slices": 3}) == folder
    with pytest.raises(ConfigError, match="other options"):
        begin(folder, {"source": "a", "slices": 4})
    assert [path.name for path in folder.iterdir()] == ["preparation.json"]


def test_a_slice_becomes_a_volume_of_one_slice_and_is_not_made_again(tmp_path):
    path = save_scan(tmp_path / "out/a.nii.gz", lambda: (SCAN[..., 0], AFFINE), space="mni")
    image = nib.load(path)
    assert image.shape == (6, 7, 1) and np.array_equal(image.dataobj[..., 0], SCAN[..., 0])
    assert image.header["sform_code"] == image.header["qform_code"] == 4
    assert np.array_equal(image.affine, AFFINE) and image.header.get_xyzt_units()[0] == "mm"
    assert save_scan(path, lambda: 1 / 0) == path


@pytest.mark.parametrize(
    ("voxels", "affine", "code"),
    [
        (np.zeros((6, 7, 8), np.float32), AFFINE, "constant_image"),
        (np.full((6, 7, 8), np.nan, np.float32), AFFINE, "not_finite"),
        (SCAN, np.diag([100.0, 1, 1, 1]), "voxel_size"),
    ],
)
def test_what_the_readers_refuse_is_not_written(tmp_path, voxels, affine, code):
    with pytest.raises(InputError, match=r"scan-7\.nii\.gz") as refusal:
        save_scan(tmp_path / "scan-7.nii.gz", lambda: (voxels, affine))
    assert refusal.value.code == code
    assert not list(tmp_path.iterdir())


def test_tables(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("\ufefffile,slice\na,3\nNA,\n".encode())  # as a spreadsheet writes it
    rows = [{"file": "a", "slice": "3"}, {"file": "NA", "slice": ""}]
    assert read_table(path, ("file", "slice")) == rows
    with pytest.raises(ConfigError, match=r"table\.csv has no column box, label"):
        read_table(path, ("file", "label", "box"))
    with pytest.raises(ConfigError, match="does not exist"):
        listed("none.csv")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"table\.csv cannot be read"):
        read_table(path)
