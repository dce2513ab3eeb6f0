"""PNG files as axial slices."""

import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
from limits import refusal
from monai.transforms import Compose, Orientationd
from PIL import Image
from scan_builders import zipped

from pathology_screen.errors import ConfigError
from pathology_screen.geometry import DISPLAY_AXES
from pathology_screen.io import png as module
from pathology_screen.io import read_scan
from pathology_screen.transforms import LoadScand

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)


def save(path, pixels=PIXELS, mode=None, **options):
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png(width=7, height=9, depth=8, colour=0, data=None, extra=b"", interlaced=0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    data = b"".join(b"\0" + row.tobytes() for row in PIXELS) if data is None else data
    rows = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + rows


def test_grey_values_are_kept_as_one_axial_slice(tmp_path):
    wide = PIXELS.astype("uint16") * 257
    (tmp_path / "made.png").write_bytes(png())
    colour = save(tmp_path / "SLICE.PNG", np.repeat(PIXELS[..., None], 3, axis=2))
    for path, pixels in (
        (save(tmp_path / "grey.png"), PIXELS),
        (save(tmp_path / "wide.png", wide), wide),
        (tmp_path / "made.png", PIXELS),
        (colour, PIXELS),  # of equal channels
        (zipped([colour], tmp_path / "slice.zip"), PIXELS),
    ):
        scan = read_scan(path)
        assert scan.voxels.dtype == np.float32 and scan.affine.dtype == np.float64
        np.testing.assert_array_equal(scan.voxels, pixels[..., None])
        expected = {"format": "png", "file_count": 1, "axes": "PLS", "obliquity_deg": 0.0}
        assert scan.source == expected


@pytest.mark.parametrize(
    "options, down, across, shown",
    [
        ({}, [0, -1, 0, 0], [-1, 0, 0, 0], PIXELS),
        ({"axes": "PLS", "pixel_mm": 2}, [0, -2, 0, 0], [-2, 0, 0, 0], PIXELS),
        ({"axes": "PRS", "pixel_mm": 0.5}, [0, -0.5, 0, 0], [0.5, 0, 0, 0], PIXELS[:, ::-1]),
    ],
)
def test_rows_run_to_posterior_and_columns_to_the_left_or_as_told(
    tmp_path, options, down, across, shown
):
    path = save(tmp_path / "slice.png")
    affine = read_scan(path, **options).affine
    np.testing.assert_array_equal(affine[:, :2].T, [down, across])
    np.testing.assert_array_equal(affine @ [4, 3, 0, 1], [0, 0, 0, 1])  # the middle
    load = Compose([LoadScand("image"), Orientationd("image", axcodes=DISPLAY_AXES, labels=None)])
    image = load({"image": path, "axial_slice": True, **options})["image"]
    np.testing.assert_array_equal(image[0, ..., 0], shown)
    assert float(image.pixdim[0]) == options.get("pixel_mm", 1)


DAMAGED = bytearray(png())
DAMAGED[-14] ^= 1  # in the checksum of the pixels
OTHERS = [Image.fromarray(np.roll(PIXELS, shift)) for shift in (1, 2)]
BAD = {
    "colour": ({"pixels": np.stack([PIXELS, PIXELS, PIXELS + 1], axis=2)}, "not_monochrome"),
    "alpha": ({"mode": "LA"}, "not_monochrome"),
    "palette": ({"mode": "P"}, "not_monochrome"),
    "transparent grey value": (png(extra=chunk(b"tRNS", b"\0\5")), "not_monochrome"),
    "one bit": ({"pixels": PIXELS > 99}, "not_monochrome"),
    "16-bit colour": (png(depth=16, colour=2, data=b"\0" * 9 * 43), "not_monochrome"),
    "animated": ({"save_all": True, "append_images": OTHERS}, "not_3d"),
    "constant": ({"pixels": PIXELS * 0}, "constant_image"),
    "line": ({"pixels": PIXELS[:1]}, "not_3d"),
    "cut in the header": (png()[:20], "unsupported_format"),
    "cut in the pixels": (png()[:70], "unreadable"),
    "without end": (png()[:-12], "unreadable"),
    "too few rows": (png(height=12), "unreadable"),
    "too many rows": (png(height=6), "unreadable"),
    "interlaced": (png(interlaced=1), "unsupported_format"),
    "damaged": (DAMAGED, "unreadable"),
    "another format": ({"format": "JPEG"}, "unsupported_format"),
    "empty": (b"", "unsupported_format"),
    "vast": (png(width=60000, height=60000), "too_large"),
    "long": (png(extra=chunk(b"teXt", b"x" * module.MAX_BYTES)), "too_large"),
}
"""What is wrong -> options of `save`, or the bytes; and the code of the refusal."""


@pytest.mark.parametrize("made, code", BAD.values(), ids=BAD)
def test_what_is_no_grey_slice_is_refused(tmp_path, made, code):
    path = tmp_path / "CANARY.png"
    if isinstance(made, dict):
        save(path, **made)
    else:
        path.write_bytes(made)
    assert refusal(path).code == code


def test_wrong_options_are_told(tmp_path):
    path = save(tmp_path / "slice.png")
    assert refusal(path, pixel_mm=30).code == "voxel_size"  # which no scan has
    for options in ({"axes": "RAS"}, {"axes": "ALS"}, {"pixel_mm": 0}, {"pixel_mm": "1"}):
        with pytest.raises(ConfigError, match='are "PLS" or "PRS"|positive number'):
            read_scan(path, **options)
    path = tmp_path / "slice.nii"  # which states its geometry
    nib.save(nib.Nifti1Image(PIXELS[..., None], np.eye(4)), path)
    for options in ({"axes": "PLS"}, {"pixel_mm": 1.0}):
        with pytest.raises(ConfigError, match="PNG"):
            read_scan(path, axial_slice=True, **options)


@pytest.mark.needs_shared
def test_a_real_slice(shared_data):
    scan = read_scan(shared_data / "ixi_slices" / "sub-IXI002_T1w.png")
    assert scan.voxels.shape == (233, 197, 1) and scan.voxels.max() == 255
