"""What a compressed frame says of itself, read before any decoder sees it: its size, and whether it
is whole."""

from __future__ import annotations

import math
import re
import struct
from typing import NamedTuple

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pathology_screen.errors import InputError

JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
JPEG_2000 = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)

MAX_TILES = 4096
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""SOF: what begins a segment with the size of a JPEG or JPEG-LS image."""
START, END, SCAN = 0xD8, 0xD9, 0xDA
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Ends the data of a JPEG scan: neither a stuffed byte nor a restart marker."""
_NEXT_LS_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""The same in JPEG-LS, which stuffs a bit."""


class FrameSize(NamedTuple):
    """What a frame has to be: rows, columns, and the most bits of a sample, of one sample a
    pixel."""

    rows: int
    columns: int
    bits: int


def check_frame(frame: bytes, syntax: UID, size: FrameSize) -> None:
    """Refuse a compressed frame that is not of the size that the header of its file states, or is
    cut short.

    Args:
        frame: the codestream of one frame, padded to even length.
        syntax: its transfer syntax.
        size: what the header states.

    Raises:
        InputError: "unreadable".
    """
    try:
        if syntax in JPEG_2000:
            found = _jpeg_2000(frame)
        elif syntax in JPEG or syntax in JPEG_LS:
            found = _jpeg(frame, _NEXT_LS_MARKER if syntax in JPEG_LS else _NEXT_MARKER)
        elif syntax == RLELossless:
            return _check_run_lengths(frame, size)
        else:
            raise InputError("unsupported_compression", syntax.name)
    except (struct.error, IndexError):
        raise InputError("unreadable", "a compressed frame is cut short") from None
    rows, columns, bits, samples = found
    if (rows, columns, samples) != (size.rows, size.columns, 1) or not 0 < bits <= size.bits:
        stated = f"{size.rows} x {size.columns} of one sample of up to {size.bits} bits"
        raise InputError(
            "unreadable",
            f"a compressed frame has {rows} x {columns} pixels of {samples} x {bits} bits, not {stated}",
        )
    if syntax in JPEG_2000:
        _check_tiles(frame)
    return None


def with_scan_data_behind(frame: bytes) -> bytes:
    """A JPEG frame with more scan data before its end: it decodes to the same pixels, unless its
    own ended too soon."""
    end = frame.rindex(b"\xff\xd9")
    return frame[:end] + _MORE + frame[end:]


_MORE = bytes((37 * number * number + 11 * number) % 251 for number in range(2048))
"""Bytes of no pattern, none of which is 255."""


def _jpeg(frame: bytes, next_marker: re.Pattern[bytes]) -> tuple[int, int, int, int]:
    """Rows, columns, bits and samples of a whole JPEG or JPEG-LS image."""
    at, found = 0, None
    while True:
        while frame[at + 1] == 0xFF and frame[at] == 0xFF:
            at += 1  # fill bytes
        prefix, marker = frame[at], frame[at + 1]
        if prefix != 0xFF or (marker == START) != (at == 0):
            raise InputError(
                "unreadable", "a compressed frame is damaged: no marker where one should be"
            )
        at += 2
        if marker == START:
            continue
        if marker == END:
            break
        (length,) = struct.unpack_from(">H", frame, at)
        if marker in FRAME_MARKERS:
            if found is not None:
                raise InputError("unreadable", "a compressed frame states its size twice")
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, at + 2)
            found = rows, columns, bits, samples
        at += length
        if marker == SCAN:
            following = next_marker.search(frame, at)
            if following is None:
                raise InputError(
                    "unreadable", "a compressed frame is cut short: its end marker is missing"
                )
            at = following.start()
    if found is None or frame[at:].strip(b"\0"):
        raise InputError(
            "unreadable", "a compressed frame states no size, or goes on behind its end"
        )
    return found


def _jpeg_2000(frame: bytes) -> tuple[int, int, int, int]:
    """Rows, columns, bits and samples of a whole JPEG 2000 codestream."""
    at = _start(frame)
    soc, siz, length, _, *grid, samples = struct.unpack_from(">HHHH8IH", frame, at)
    if (soc, siz) != (0xFF4F, 0xFF51):
        raise InputError("unreadable", "a compressed frame is no JPEG 2000 codestream")
    right, bottom, left, top, *_ = grid
    bits = max((frame[at + 42 + 3 * sample] & 0x7F) + 1 for sample in range(max(samples, 1)))
    _check_tile_parts(frame, at + 4 + length)
    return bottom - top, right - left, bits, samples


def _start(frame: bytes) -> int:
    """Where the codestream begins: in a JP2 file, which DICOM does not allow, behind its boxes."""
    return frame.find(b"\xff\x4f\xff\x51") if frame[4:8] == b"jP  " else 0


def _check_tiles(frame: bytes) -> None:
    right, bottom, _, _, tile_columns, tile_rows, tile_left, tile_top = struct.unpack_from(
        ">8I", frame, _start(frame) + 8
    )
    tiles = math.ceil((right - tile_left) / max(tile_columns, 1)) * math.ceil(
        (bottom - tile_top) / max(tile_rows, 1)
    )
    if tiles > MAX_TILES:
        raise InputError(
            "unreadable", f"a compressed frame has {tiles} tiles; at most {MAX_TILES} are read"
        )


def _check_tile_parts(frame: bytes, at: int) -> None:
    """Follow the segments of the main header and the tile parts to the end marker; `at` is the end
    of the first."""
    while True:
        marker, length = struct.unpack_from(">HH", frame, at)
        if marker == 0xFF90:  # SOT
            (part,) = struct.unpack_from(">I", frame, at + 6)
            if part == 0:  # up to the end
                at = frame.rindex(b"\xff\xd9") if b"\xff\xd9" in frame[at:] else len(frame)
            elif part < 14:
                raise InputError(
                    "unreadable", "a compressed frame is damaged: a tile part without data"
                )
            else:
                at += part
            if frame[at : at + 2] == b"\xff\xd9":
                break
            if frame[at : at + 2] != b"\xff\x90":
                raise InputError(
                    "unreadable", "a compressed frame is cut short: a tile part ends too soon"
                )
        elif marker < 0xFF00 or length < 2:
            raise InputError(
                "unreadable", "a compressed frame is damaged: no marker where one should be"
            )
        else:
            at += 2 + length
    if frame[at + 2 :].strip(b"\0"):
        raise InputError("unreadable", "a compressed frame goes on behind its end")


def _check_run_lengths(frame: bytes, size: FrameSize) -> None:
    count, *offsets = struct.unpack_from("<16I", frame)
    used = offsets[:count]
    rising = all(one < other for one, other in zip(used, [*used[1:], len(frame)]))
    if count != size.bits // 8 or used[0] != 64 or not rising or any(offsets[count:]):
        raise InputError(
            "unreadable",
            f"a compressed frame has {count} run-length segments, or places them wrongly",
        )
