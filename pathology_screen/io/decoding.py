"""Stored pixels of DICOM frames. A compressed frame is checked to be whole and of the stated size,
then decoded in a process of its own, with bounds on time and memory: a decoder is C code that may
hang, crash or ask for all memory, and this may cost one scan, not the run."""

import atexit
import json
import math
import os
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from pathology_screen.errors import InputError
from pathology_screen.io import decoder_process

SECONDS = 30
"""Most that decoding a frame may take; one of 2048 x 2048 pixels takes a second."""
START_SECONDS = 120
"""Most that starting the process may take, on a busy machine."""
MEMORY = 2 * 2**30
"""Most bytes of address space of the process that decodes."""

MAX_TILES = 4096
START, END, SCAN = 0xD8, 0xD9, 0xDA
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""SOF: what begins a segment with the size of a JPEG or JPEG-LS image."""
JPEG_2000_END, TILE_PART = b"\xff\xd9", b"\xff\x90"
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Ends the data of a JPEG scan: neither a stuffed byte nor a restart marker."""
_NEXT_LS_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""The same in JPEG-LS, which stuffs a bit."""
_MORE = bytes((37 * number * number + 11 * number) % 251 for number in range(2048))
"""Bytes of no pattern, none of which is 255."""


class FrameSize(NamedTuple):
    """Rows, columns, and the most bits of a sample; one sample a pixel."""

    rows: int
    columns: int
    bits: int


def stored_frames(dataset: Dataset, indices: Sequence[int]) -> np.ndarray:
    """Decode N frames of an image of one grey value a pixel: stored values (N, rows, columns).

    Raises:
        InputError: "unreadable" for a compressed frame that is damaged, cut short or of another
            size, "undecodable" for one on which the decoder fails otherwise. Where uncompressed
            pixels are damaged, pydicom raises errors of many kinds.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        decoder = get_decoder(syntax)
        return np.stack([decoder.as_array(dataset, index=index)[0] for index in indices])
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    keywords = {
        **{"rows": "Rows", "columns": "Columns", "samples_per_pixel": "SamplesPerPixel"},
        **{"bits_allocated": "BitsAllocated", "bits_stored": "BitsStored"},
        "pixel_representation": "PixelRepresentation",
    }
    stated = {name: int(dataset[keyword].value) for name, keyword in keywords.items()}
    size = FrameSize(stated["rows"], stated["columns"], stated["bits_allocated"])
    options = {**stated, "syntax": str(syntax), "number_of_frames": 1, "pixel_keyword": "PixelData"}
    options |= {"photometric_interpretation": "MONOCHROME2"}  # inverted later
    return np.stack([_decoded(frames[index], syntax, size, options) for index in indices])


def _decoded(frame: bytes, syntax: uid.UID, size: FrameSize, options: dict) -> np.ndarray:
    check_frame(frame, syntax, size)
    pixels = _process.decode(frame, options)
    if pixels.shape != (size.rows, size.columns) or pixels.dtype.kind not in "iu":
        raise _damaged("decodes to another size")
    if syntax in uid.JPEGTransferSyntaxes:
        # with more scan data it decodes alike, unless its own ended too soon
        end = frame.rindex(b"\xff\xd9")
        longer = frame[:end] + _MORE + frame[end:]
        if not np.array_equal(pixels, _process.decode(longer, options)):
            raise _damaged("is cut short: its scan data end too soon")
    return pixels


# --- what a compressed frame says of itself ---


def check_frame(frame: bytes, syntax: uid.UID, size: FrameSize) -> None:
    """Refuse the codestream of one frame, padded to even length, that is not of the size that the
    header states, or is cut short: "unreadable", "unsupported_compression"."""
    try:
        if syntax == uid.RLELossless:
            return _check_run_lengths(frame, size)
        if syntax in uid.JPEG2000TransferSyntaxes:
            found = _jpeg_2000(frame)
        elif syntax in uid.JPEGTransferSyntaxes:
            found = _jpeg(frame, _NEXT_MARKER)
        elif syntax in uid.JPEGLSTransferSyntaxes:
            found = _jpeg(frame, _NEXT_LS_MARKER)
        else:
            raise InputError("unsupported_compression", syntax.name)
    except (struct.error, IndexError):
        raise _damaged("is cut short") from None
    rows, columns, bits, samples, tiles = found
    if (rows, columns, samples) != (size.rows, size.columns, 1) or not 0 < bits <= size.bits:
        stated = f"{size.rows} x {size.columns} of one sample of up to {size.bits} bits"
        has = f"{rows} x {columns} pixels of {samples} x {bits} bits"
        raise _damaged(f"has {has}, not {stated}")
    if tiles > MAX_TILES:
        raise _damaged(f"has {tiles} tiles; at most {MAX_TILES} are read")
    return None


def _damaged(how: str) -> InputError:
    return InputError("unreadable", f"a compressed frame {how}")


def _jpeg(frame: bytes, next_marker: re.Pattern[bytes]) -> tuple[int, int, int, int, int]:
    """Rows, columns, bits, samples and tiles (one) of a whole JPEG or JPEG-LS image."""
    at, found = 0, None
    while True:
        while frame[at + 1] == 0xFF and frame[at] == 0xFF:
            at += 1  # fill bytes
        prefix, marker = frame[at], frame[at + 1]
        if prefix != 0xFF or (marker == START) != (at == 0):
            raise _damaged("is damaged: no marker where one should be")
        at += 2
        if marker == START:
            continue
        if marker == END:
            break
        (length,) = struct.unpack_from(">H", frame, at)
        if marker in FRAME_MARKERS:
            if found is not None:
                raise _damaged("states its size twice")
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, at + 2)
            found = rows, columns, bits, samples, 1
        at += length
        if marker == SCAN:
            following = next_marker.search(frame, at)
            if following is None:
                raise _damaged("is cut short: its end marker is missing")
            at = following.start()
    if found is None or frame[at:].strip(b"\0"):
        raise _damaged("states no size, or goes on behind its end")
    return found


def _jpeg_2000(frame: bytes) -> tuple[int, int, int, int, int]:
    """Rows, columns, bits, samples and tiles of a whole JPEG 2000 codestream."""
    # in a JP2 file, which DICOM does not allow, the codestream begins behind the boxes
    at = frame.find(b"\xff\x4f\xff\x51") if frame[4:8] == b"jP  " else 0
    soc, siz, length, _, *grid, samples = struct.unpack_from(">HHHH8IH", frame, at)
    if (soc, siz) != (0xFF4F, 0xFF51):
        raise _damaged("is no JPEG 2000 codestream")
    right, bottom, left, top, columns, rows, from_left, from_top = grid
    across = math.ceil((right - from_left) / max(columns, 1))
    tiles = across * math.ceil((bottom - from_top) / max(rows, 1))
    bits = max((frame[at + 42 + 3 * sample] & 0x7F) + 1 for sample in range(max(samples, 1)))
    _check_tile_parts(frame, at + 4 + length)
    return bottom - top, right - left, bits, samples, tiles


def _check_tile_parts(frame: bytes, at: int) -> None:
    """Follow the segments from `at` on, and the tile parts, to the end marker."""
    while True:
        marker, length = struct.unpack_from(">HH", frame, at)
        if marker == 0xFF90:  # SOT
            (part,) = struct.unpack_from(">I", frame, at + 6)
            if part == 0:  # up to the end
                end = frame.rfind(JPEG_2000_END, at)
                at = end if end >= 0 else len(frame)
            elif part < 14:
                raise _damaged("is damaged: a tile part without data")
            else:
                at += part
            if frame[at : at + 2] == JPEG_2000_END:
                break
            if frame[at : at + 2] != TILE_PART:
                raise _damaged("is cut short: a tile part ends too soon")
        elif marker < 0xFF00 or length < 2:
            raise _damaged("is damaged: no marker where one should be")
        else:
            at += 2 + length
    if frame[at + 2 :].strip(b"\0"):
        raise _damaged("goes on behind its end")


def _check_run_lengths(frame: bytes, size: FrameSize) -> None:
    count, *offsets = struct.unpack_from("<16I", frame)
    used = offsets[:count]
    rising = all(one < other for one, other in zip(used, [*used[1:], len(frame)]))
    if count != size.bits // 8 or used[0] != 64 or not rising or any(offsets[count:]):
        raise _damaged(f"has {count} run-length segments, or places them wrongly")


# --- the process that decodes ---


class DecoderProcess:
    """A process that decodes, started when needed, after it was lost, and after a fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def decode(self, frame: bytes, options: dict[str, Any]) -> np.ndarray:
        """Decode a compressed frame; "unreadable" where the decoder refuses it or warns,
        "undecodable" where it takes too long or too much memory, or crashes."""
        with self.lock:
            with self._bounded(START_SECONDS):
                process = self._running()
            with self._bounded(SECONDS):
                header, data = _exchange(process, frame, options)
        if header.get("error") == "MemoryError":
            detail = f"the decoder asked for more than {MEMORY // 2**20} MiB"
            raise InputError("undecodable", detail)
        if "error" in header:
            raise _damaged(f"is damaged: {header['error']}")
        return np.frombuffer(data, np.dtype(header["dtype"])).reshape(header["shape"])

    @contextmanager
    def _bounded(self, seconds: int) -> Iterator[None]:
        """Kill the process where what is done takes longer; "undecodable" where it was lost."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            if self.process is not None:
                self.process.kill()

        timer = threading.Timer(seconds, expire)
        timer.start()
        try:
            yield
        except (OSError, ValueError):
            self.stop()
            what = f"took more than {seconds} s" if expired.is_set() else "crashed"
            raise InputError("undecodable", f"the decoder {what}") from None
        except BaseException:
            self.stop()  # interrupted: what it would answer now is for nobody
            raise
        finally:
            timer.cancel()

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()

    def forget(self) -> None:
        """Leave the process to the one that was forked."""
        self.lock, self.process = threading.Lock(), None

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            script = str(Path(decoder_process.__file__))
            self.process = subprocess.Popen(
                [sys.executable, "-P", script, str(MEMORY), str(SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for this process
            )
            _read(self.process)  # it is ready
        return self.process


def _exchange(
    process: subprocess.Popen[bytes], frame: bytes, options: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None
    process.stdin.write(json.dumps({**options, "length": len(frame)}).encode() + b"\n" + frame)
    process.stdin.flush()
    return _read(process)


def _read(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], bytes]:
    assert process.stdout is not None
    header = json.loads(process.stdout.readline())
    data = process.stdout.read(header["length"])
    if len(data) != header["length"]:
        raise OSError
    return header, data


_process = DecoderProcess()
atexit.register(_process.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forget)
