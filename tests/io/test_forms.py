"""NIfTI files with two orientations: what contradicts is refused, what merely differs is told."""

import nibabel as nib
import numpy as np
import pytest
from scan_builders import head_volume

from pathology_screen.errors import InputError
from pathology_screen.io import read_scan

AFFINE = np.array([[-1.0, 0, 0, 60], [0, 1.5, 0, -70], [0, 0, 2, -20], [0, 0, 0, 1]])
FLIPPED = np.diag([-1.0, 1, 1, 1]) @ AFFINE


def turned(degrees, axis="z"):
    turn = np.eye(4)
    turn[:3, :3] = nib.eulerangles.euler2mat(**{axis: np.radians(degrees)})
    return turn @ AFFINE


def write(path, sform, qform, codes=(1, 1), pixdim=None):
    image = nib.Nifti1Image(head_volume(), None)
    image.set_qform(qform, code=codes[1])
    image.set_sform(sform, code=codes[0])
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    "sform, qform, codes, message",
    [
        (AFFINE, FLIPPED, (1, 1), "sides"),
        (AFFINE, FLIPPED, (4, 1), "sides"),
        (
            AFFINE @ np.diag([0.8, 0.8, 0.8, 1]),
            AFFINE,
            (1, 1),
            "0.8 x 1.2 x 1.6 mm by the sform, of 1 x 1.5 x 2 mm",
        ),
        (AFFINE @ np.diag([1, 1, 1.1, 1]), AFFINE, (4, 1), "by pixdim"),
        (AFFINE, turned(5), (1, 1), "5.0 degrees"),
        (AFFINE, turned(12, "x"), (2, 2), "12.0 degrees"),
        (AFFINE, turned(90), (2, 1), "90.0 degrees"),
        (AFFINE, turned(180), (4, 1), "180.0 degrees"),
    ],
)
def test_contradictions(tmp_path, sform, qform, codes, message):
    with pytest.raises(InputError, match=f"contradictory_geometry.*{message}.*set_sform"):
        read_scan(write(tmp_path / "s.nii", sform, qform, codes))


@pytest.mark.parametrize("pixdim", [(1.25, 1.5, 2), (1, 1.5, 1)])
def test_sform_alone_against_the_voxel_size(tmp_path, pixdim):
    path = write(tmp_path / "s.nii", AFFINE, AFFINE, (1, 0), pixdim)
    with pytest.raises(InputError, match="contradictory_geometry.*pixdim"):
        read_scan(path)


@pytest.mark.parametrize(
    "qform, codes, pixdim",
    [
        (AFFINE, (1, 1), None),
        (AFFINE + np.eye(4, k=3) * 30, (1, 1), None),  # another origin
        (turned(0.5), (1, 1), None),
        (FLIPPED, (1, 0), None),  # not set
        (AFFINE, (1, 1), (1.002, 1.5, 2)),
    ],
)
def test_what_agrees_is_read(tmp_path, qform, codes, pixdim):
    scan = read_scan(write(tmp_path / "s.nii", AFFINE, qform, codes, pixdim))
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert "other_orientation" not in scan.source


def test_another_space_is_told(tmp_path):
    scan = read_scan(write(tmp_path / "s.nii", AFFINE, turned(8), (4, 1)))
    assert scan.source["other_orientation"] == "the qform is turned by 8.0 degrees"


def patched(path, *changes):
    data = bytearray(path.read_bytes())
    for offset, numbers in changes:
        data[offset : offset + 4 * len(numbers)] = np.array(numbers, "<f4").tobytes()
    path.write_bytes(data)
    return path


def test_a_qform_that_is_not_usable_is_told(tmp_path):
    path = patched(write(tmp_path / "s.nii", AFFINE, AFFINE), (256, [0.9, 0.9, 0.9]))
    scan = read_scan(path)
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert scan.source["other_orientation"] == "the qform is not usable"


@pytest.mark.parametrize(
    "row, code", [([0, 0, 0, 0], "singular_affine"), ([np.nan] * 4, "missing_geometry")]
)
def test_a_sform_that_is_not_usable_says_that_the_qform_is(tmp_path, row, code):
    path = patched(write(tmp_path / "s.nii", AFFINE, AFFINE), (280, row))
    with pytest.raises(InputError, match=rf"{code}.*of the sform.*qform is usable"):
        read_scan(path)
    path = patched(write(tmp_path / "t.nii", AFFINE, AFFINE, (1, 0)), (280, row))
    with pytest.raises(InputError) as caught:
        read_scan(path)
    assert caught.value.code == code and "usable" not in str(caught.value)


def test_two_dimensions(tmp_path):
    nib.save(nib.Nifti1Image(head_volume()[:, :, 0], AFFINE), tmp_path / "s.nii")
    assert read_scan(tmp_path / "s.nii", axial_slice=True).voxels.shape == (8, 20, 1)
