"""A grey PNG file as one axial slice, or a refusal."""

import io
import zlib

import numpy as np
from PIL import Image

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.geometry import DISPLAY_AXES
from pathology_screen.io.file import File, opened
from pathology_screen.io.scan import Scan, check_place, check_shape, check_voxels

COLUMN_DIRECTIONS = {DISPLAY_AXES: -1, "PRS": 1}
"""Rows run from anterior to posterior; columns to the patient's left, or to the right."""
SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
MAX_BYTES = 2**25  # more than the largest slice needs as 16-bit grey without compression
DEPTHS = {0: (8, 16), 2: (8,)}  # grey, colour -> bits a channel; others: palette, transparency


def read_png(file: File, *, axes: str | None = None, pixel_mm: float | None = None) -> Scan:
    """Read a PNG of 8- or 16-bit grey, or of 8-bit equal channels, as one axial slice: voxels
    (rows, columns, 1), float32, as they are stored.

    A PNG does not say where it lies in the patient: the middle of the picture becomes the origin,
    and the slice is given a thickness of 1 mm. Options and errors are those of `io.read_scan`.
    """
    axes, pixel = axes or DISPLAY_AXES, 1.0 if pixel_mm is None else pixel_mm
    if axes not in COLUMN_DIRECTIONS:
        raise ConfigError(f'axes of a PNG slice are "PLS" or "PRS", not {axes!r}')
    if isinstance(pixel, bool) or not isinstance(pixel, int | float) or not pixel > 0:
        raise ConfigError(f"pixel_mm is a positive number, not {pixel!r}")
    with opened(file) as stream:
        data = stream.read(MAX_BYTES + 1)
        _check_header(data)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()  # the checksums of all parts, and that the last is there
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if getattr(image, "is_animated", False):
                raise InputError("not_3d", "the PNG file is an animation")
            if "transparency" in image.info:
                raise InputError("not_monochrome", "the PNG file holds transparent pixels")
            pixels = np.asarray(image)
        _check_length(data, pixels.nbytes + len(pixels))  # a row begins with its filter's number
    if pixels.ndim == 3:
        if np.ptp(pixels, axis=2).any():
            raise InputError("not_monochrome", "the channels of the PNG file differ")
        pixels = pixels[..., 0]
    voxels = pixels[..., None].astype(np.float32)
    affine = np.diag([0, 0, 1.0, 1.0])
    affine[1, 0], affine[0, 1] = -pixel, COLUMN_DIRECTIONS[axes] * pixel
    affine[:3, 3] = -affine[:3, :3] @ (np.array(voxels.shape) - 1) / 2
    obliquity = check_place(voxels.shape, affine, axial_slice=True)
    check_voxels(voxels)
    source = {"format": "png", "file_count": 1, "axes": axes, "obliquity_deg": obliquity}
    return Scan(voxels, affine, source)


def _check_header(data: bytes) -> None:
    """Refuse by its first bytes a file that is no PNG, too large, or not grey."""
    if not data.startswith(SIGNATURE) or len(data) < len(SIGNATURE) + 13:
        raise InputError("unsupported_format", "it does not begin as a PNG file does")
    if len(data) > MAX_BYTES:
        raise InputError("too_large", f"the PNG file has more than {MAX_BYTES >> 20} MiB")
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    check_shape((height, width, 1))
    depth, colour, interlaced = data[24], data[25], data[28]
    if interlaced:
        raise InputError("unsupported_format", "the PNG file is interlaced", "Save it without")
    if colour not in DEPTHS:
        detail = "the PNG file has a palette or transparency"
        raise InputError("not_monochrome", detail, "Save it as 8-bit grey")
    if depth not in DEPTHS[colour]:
        hint = "Save it as 8- or 16-bit grey"
        raise InputError("not_monochrome", f"{depth} bits a channel", hint)


def _check_length(data: bytes, expected: int) -> None:
    """Refuse a file with other than the declared bytes; Pillow paints what is missing."""
    start, packed = 8, b""
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] == b"IDAT":
            packed += data[start + 8 : start + 8 + length]
        start += length + 12
    if len(zlib.decompressobj().decompress(packed, expected + 1)) != expected:
        detail = "the PNG file holds more or fewer pixels than its header says"
        raise InputError("unreadable", detail)
