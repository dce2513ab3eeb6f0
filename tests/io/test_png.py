"""PNG files as axial slices."""

import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, Orientationd
from PIL import Image
from scan_builders import zipped

from pathology_screen.errors import ConfigError
from pathology_screen.geometry import DISPLAY_AXES
from pathology_screen.io import png as module
from pathology_screen.io import read_scan
from pathology_screen.transforms import LoadScand

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)


def save(path, pixels=PIXELS, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png(width=7, height=9, depth=8, colour=0, data=None, extra=b"", interlaced=0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    data = b"".join(b"\0" + row.tobytes() for row in PIXELS) if data is None else data
    rows = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + rows


@pytest.mark.parametrize("dtype, factor", [("uint8", 1), ("uint16", 257)])
def test_grey_values_are_kept_as_one_axial_slice(tmp_path, dtype, factor):
    pixels = PIXELS.astype(dtype) * factor
    scan = read_scan(save(tmp_path / "slice.png", pixels))
    assert scan.voxels.dtype == np.float32 and scan.affine.dtype == np.float64
    np.testing.assert_array_equal(scan.voxels, pixels[..., None])
    assert scan.source == {"format": "png", "file_count": 1, "axes": "PLS", "obliquity_deg": 0.0}


def test_grey_stored_as_colour_or_in_an_archive_is_read(tmp_path):
    path = save(tmp_path / "SLICE.PNG", np.repeat(PIXELS[..., None], 3, axis=2))
    zipped([path], tmp_path / "slice.zip")
    (tmp_path / "made.png").write_bytes(png())
    for name in ("SLICE.PNG", "slice.zip", "made.png"):
        np.testing.assert_array_equal(read_scan(tmp_path / name).voxels[..., 0], PIXELS)


@pytest.mark.parametrize(
    "options, down, across",
    [
        ({}, [0, -1, 0, 0], [-1, 0, 0, 0]),
        ({"axes": "PRS", "pixel_mm": 0.5}, [0, -0.5, 0, 0], [0.5, 0, 0, 0]),
    ],
)
def test_rows_run_to_posterior_and_columns_to_the_left_or_as_told(tmp_path, options, down, across):
    affine = read_scan(save(tmp_path / "slice.png"), **options).affine
    np.testing.assert_array_equal(affine[:, :2].T, [down, across])
    np.testing.assert_array_equal(affine @ [4, 3, 0, 1], [0, 0, 0, 1])  # the middle


@pytest.mark.parametrize(
    "axes, expected", [(None, PIXELS), ("PLS", PIXELS), ("PRS", PIXELS[:, ::-1])]
)
def test_a_datalist_item_comes_to_the_display_axes(tmp_path, axes, expected):
    item = {"image": save(tmp_path / "slice.png"), "axial_slice": True}
    item |= {"axes": axes} if axes else {}
    load = Compose([LoadScand("image"), Orientationd("image", axcodes=DISPLAY_AXES, labels=None)])
    np.testing.assert_array_equal(load(item)["image"][0, ..., 0], expected)
    assert float(load({**item, "pixel_mm": 2})["image"].pixdim[0]) == 2


def converted(mode):
    return lambda path: Image.fromarray(PIXELS).convert(mode).save(path)


def animated(path):
    frames = [Image.fromarray(np.roll(PIXELS, shift)) for shift in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def bytes_of(content: bytes):
    return lambda path: path.write_bytes(content)


def damaged(path):
    data = bytearray(png())
    data[-14] ^= 1  # in the checksum of the pixels
    path.write_bytes(data)


COLOURS = np.stack([PIXELS, PIXELS, PIXELS + 1], axis=2)
LONG = chunk(b"teXt", b"x" * module.MAX_BYTES)
BAD = {
    "colour": (lambda path: save(path, COLOURS), "not_monochrome"),
    "alpha": (converted("LA"), "not_monochrome"),
    "palette": (converted("P"), "not_monochrome"),
    "transparent grey value": (bytes_of(png(extra=chunk(b"tRNS", b"\0\5"))), "not_monochrome"),
    "one bit": (lambda path: save(path, PIXELS > 99), "not_monochrome"),
    "16-bit colour": (bytes_of(png(depth=16, colour=2, data=b"\0" * 9 * 43)), "not_monochrome"),
    "animated": (animated, "not_3d"),
    "constant": (lambda path: save(path, PIXELS * 0), "constant_image"),
    "line": (lambda path: save(path, PIXELS[:1]), "not_3d"),
    "cut in the header": (bytes_of(png()[:20]), "unsupported_format"),
    "cut in the pixels": (bytes_of(png()[:70]), "unreadable"),
    "without end": (bytes_of(png()[:-12]), "unreadable"),
    "too few rows": (bytes_of(png(height=12)), "unreadable"),
    "too many rows": (bytes_of(png(height=6)), "unreadable"),
    "interlaced": (bytes_of(png(interlaced=1)), "unsupported_format"),
    "damaged": (damaged, "unreadable"),
    "another format": (lambda path: save(path, format="JPEG"), "unsupported_format"),
    "empty": (bytes_of(b""), "unsupported_format"),
    "vast": (bytes_of(png(width=60000, height=60000)), "too_large"),
    "long": (bytes_of(png(extra=LONG)), "too_large"),
}


@pytest.mark.parametrize("write, code", BAD.values(), ids=BAD)
def test_what_is_no_grey_slice_is_refused(tmp_path, refusal, write, code):
    write(tmp_path / "CANARY.png")
    error = refusal(tmp_path / "CANARY.png")
    assert error.code == code
    assert str(tmp_path) not in str(error) and "CANARY" not in str(error)


def test_a_size_of_pixels_that_no_scan_has_is_refused(tmp_path, refusal):
    assert refusal(save(tmp_path / "slice.png"), pixel_mm=30).code == "voxel_size"


@pytest.mark.parametrize(
    "options", [{"axes": "RAS"}, {"axes": "ALS"}, {"pixel_mm": 0}, {"pixel_mm": "1"}]
)
def test_wrong_options_are_told(tmp_path, options):
    with pytest.raises(ConfigError):
        read_scan(save(tmp_path / "slice.png"), **options)


@pytest.mark.parametrize("options", [{"axes": "PLS"}, {"pixel_mm": 1.0}])
def test_files_that_state_their_geometry_take_no_other(tmp_path, options):
    path = tmp_path / "slice.nii"
    nib.save(nib.Nifti1Image(PIXELS[..., None], np.eye(4)), path)
    with pytest.raises(ConfigError, match="PNG"):
        read_scan(path, axial_slice=True, **options)


@pytest.mark.needs_shared
def test_a_real_slice(shared_data):
    scan = read_scan(shared_data / "ixi_slices" / "sub-IXI002_T1w.png")
    assert scan.voxels.shape == (233, 197, 1) and scan.voxels.max() == 255
