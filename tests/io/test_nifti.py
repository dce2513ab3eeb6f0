"""NIfTI files in every form; contradictory orientations are refused, different ones told."""

import gzip
import zipfile

import nibabel as nib
import numpy as np
import pytest
from limits import cheap, refusal
from scan_builders import head_volume, zipped

from pathology_screen.io import read_scan

AFFINE = np.array([[-1.0, 0, 0, 60], [0, 1.5, 0, -70], [0, 0, 2, -20], [0, 0, 0, 1]])


def save(path, voxels, affine=AFFINE, kind=nib.Nifti1Image, units="mm", **options):
    image = kind(voxels, affine, dtype=voxels.dtype, **options)
    image.header.set_xyzt_units(units)
    path.parent.mkdir(exist_ok=True)
    nib.save(image, path)
    return path


def patch(path, offset, *numbers):
    """Overwrite float32 numbers in the header of an uncompressed file."""
    data = bytearray(path.read_bytes())
    data[offset : offset + 4 * len(numbers)] = np.array(numbers, "<f4").tobytes()
    path.write_bytes(data)
    return path


DTYPES = "uint8 int8 int16 uint16 int32 uint32 int64 float32 float64"


@pytest.mark.parametrize("dtype", DTYPES.split())
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_are_float32_in_every_sample_format(tmp_path, dtype, suffix):
    voxels = (head_volume() % 120).astype(dtype)
    scan = read_scan(save(tmp_path / f"scan{suffix}", voxels))
    assert scan.voxels.dtype == np.float32 and scan.affine.dtype == np.float64
    np.testing.assert_array_equal(scan.voxels, voxels)
    np.testing.assert_allclose(scan.affine, AFFINE)
    expected = {"format": "nifti", "file_count": 1, "affine_source": "sform", "obliquity_deg": 0.0}
    assert scan.source == expected


def test_every_form_of_a_file(tmp_path):
    voxels, metres = head_volume(), AFFINE / [[1000], [1000], [1000], [1]]
    packed = save(tmp_path / "scan.nii/scan.nii.gz", voxels)
    paths = [
        save(tmp_path / "two.nii.gz", voxels, kind=nib.Nifti2Image),
        save(tmp_path / "big.nii", voxels, header=nib.Nifti1Header(endianness=">")),
        save(tmp_path / "metres.nii", voxels, metres, units="meter"),
        save(tmp_path / "a.nii", voxels[..., None]),  # trailing axes of one voxel
        save(tmp_path / "b.nii.gz", voxels[..., None, None]),
        packed.parent,  # a folder of that name
        zipped([packed], tmp_path / "scan.zip"),
    ]
    data, half = gzip.decompress(packed.read_bytes()), 500
    parts = gzip.compress(data[:half]) + gzip.compress(data[half:] + b"behind")
    contents = {"plain.nii.gz": data, "packed.nii": gzip.compress(data), "parts.nii.gz": parts}
    for name, content in contents.items():  # packed but not named so, the reverse, in two parts
        (tmp_path / name).write_bytes(content)
    for path in (*paths, *(tmp_path / name for name in contents)):
        scan = read_scan(path)
        np.testing.assert_array_equal(scan.voxels, voxels)
        np.testing.assert_allclose(scan.affine, AFFINE, rtol=1e-5)


@pytest.mark.parametrize("slope, factor", [(0.5, 0.5), (0, 1), (np.nan, 1)])
def test_scaling_is_applied_and_none_where_the_slope_is_zero_or_nan(tmp_path, slope, factor):
    voxels = head_volume().astype("int16")
    path = patch(save(tmp_path / "scan.nii", voxels), 112, slope, -3)  # scl_slope, scl_inter
    np.testing.assert_allclose(read_scan(path).voxels, factor * voxels)  # the background is 0


def test_single_axial_slice(tmp_path):
    voxels, turned_axes = head_volume()[:, :, :1], [0, 2, 1, 3]
    for stored in (voxels[:, :, 0], voxels):
        scan = read_scan(save(tmp_path / "a.nii", stored), axial_slice=True)
        np.testing.assert_array_equal(scan.voxels, voxels)
        np.testing.assert_allclose(scan.affine, AFFINE)
    path = save(tmp_path / "c.nii", voxels.transpose(0, 2, 1), AFFINE[:, turned_axes])
    assert read_scan(path, axial_slice=True).voxels.shape == (8, 1, 20)  # as stored


@pytest.mark.needs_shared
def test_real_scans(shared_data):
    brain = read_scan(shared_data / "oasis" / "sub-N000_T1w.nii.gz")
    assert brain.voxels.shape == (176, 208, 25)
    head = read_scan(shared_data / "whole_head" / "IXI012-HH-1211_T1.nii.gz")
    assert head.voxels.shape == (120, 120, 90)  # stored with inferior-superior as its second axis


# --- sform and qform ---


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


FLIPPED = np.diag([-1.0, 1, 1, 1]) @ AFFINE
MOVED = AFFINE + np.eye(4, k=3) * 30
SMALLER = AFFINE @ np.diag([0.8, 0.8, 0.8, 1])


@pytest.mark.parametrize(
    "sform, qform, codes, pixdim, message",
    [
        (AFFINE, FLIPPED, (1, 1), None, "sides"),
        (AFFINE, FLIPPED, (4, 1), None, "sides"),
        (SMALLER, AFFINE, (1, 1), None, "0.8 x 1.2 x 1.6 mm by the sform, of 1 x 1.5 x 2 mm"),
        (AFFINE @ np.diag([1, 1, 1.1, 1]), AFFINE, (4, 1), None, "by pixdim"),
        (AFFINE, AFFINE, (1, 0), (1.25, 1.5, 2), "by pixdim"),
        (AFFINE, AFFINE, (1, 0), (1, 1.5, 1), "by pixdim"),
        (AFFINE, turned(5), (1, 1), None, "5.0 degrees"),
        (AFFINE, turned(12, "x"), (2, 2), None, "12.0 degrees"),
        (AFFINE, turned(90), (2, 1), None, "90.0 degrees"),
        (AFFINE, turned(180), (4, 1), None, "180.0 degrees"),
    ],
)
def test_contradictions(tmp_path, sform, qform, codes, pixdim, message):
    error = refusal(write(tmp_path / "s.nii", sform, qform, codes, pixdim))
    assert error.code == "contradictory_geometry" and message in error.detail
    assert "set_sform" in error.hint


@pytest.mark.parametrize(
    "sform, qform, codes, pixdim, other",
    [
        (AFFINE, AFFINE, (1, 1), None, None),
        (AFFINE, AFFINE, (1, 1), (1.002, 1.5, 2), None),
        (AFFINE, MOVED, (1, 1), None, None),
        (AFFINE, turned(0.5), (1, 1), None, None),
        (AFFINE, FLIPPED, (1, 0), None, None),  # not set
        (MOVED, AFFINE, (4, 1), None, None),
        (None, AFFINE, (0, 1), None, None),
        (AFFINE, turned(8), (4, 1), None, "the qform is turned by 8.0 degrees"),
    ],
)
def test_sform_goes_before_qform_and_either_may_be_alone(
    tmp_path, sform, qform, codes, pixdim, other
):
    scan = read_scan(write(tmp_path / "s.nii", sform, qform, codes, pixdim))
    np.testing.assert_allclose(scan.affine, qform if sform is None else sform, atol=1e-5)
    assert scan.source["affine_source"] == ("qform" if sform is None else "sform")
    assert scan.source.get("other_orientation") == other


@pytest.mark.parametrize(
    "row, code", [([0, 0, 0, 0], "singular_affine"), ([np.nan] * 4, "missing_geometry")]
)
def test_a_form_that_is_not_usable(tmp_path, row, code):
    scan = read_scan(patch(write(tmp_path / "s.nii", AFFINE, AFFINE), 256, 0.9, 0.9, 0.9))
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert scan.source["other_orientation"] == "the qform is not usable"
    error = refusal(patch(write(tmp_path / "s.nii", AFFINE, AFFINE), 280, *row))
    assert error.code == code and "of the sform" in error.detail and "usable" in error.hint
    error = refusal(patch(write(tmp_path / "t.nii", AFFINE, AFFINE, (1, 0)), 280, *row))
    assert error.code == code and "usable" not in str(error)


# --- files that claim more than they hold ---


def declaring(*shape):
    """How a file of doubles of this shape begins."""
    header = nib.Nifti1Image(head_volume(), np.eye(4)).header
    header.set_data_shape(shape)
    header.set_data_dtype(float)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header.binaryblock + bytes(4)


def test_nifti_that_declares_more_than_it_holds_or_unpacks_to_all_that(tmp_path):
    content = declaring(512, 512, 512)
    (tmp_path / "s.nii").write_bytes(content)
    (tmp_path / "s.nii.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s.nii", content)
    with gzip.open(tmp_path / "zeros.nii.gz", "wb", compresslevel=9) as out:
        out.write(declaring(512, 512, 100))
        for _ in range(200):
            out.write(bytes(2**20))
    codes = {"s.nii": "unreadable", "s.nii.gz": "unsafe_archive", "s.zip": "unreadable"}
    codes["zeros.nii.gz"] = "unsafe_archive"
    for name, code in codes.items():
        with cheap():
            assert refusal(tmp_path / name).code == code


def test_pointers_are_named(tmp_path):
    lfs, annex = b"version https://git-lfs.github.com/spec/v1\noid", b"/annex/objects/MD5E-s12"
    for content, what in ((lfs, "Git LFS"), (annex, "git-annex")):
        (tmp_path / "s.nii.gz").write_bytes(content)
        error = refusal(tmp_path / "s.nii.gz")
        assert error.code == "unsupported_format" and what in error.detail
