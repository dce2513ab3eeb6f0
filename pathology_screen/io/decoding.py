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
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from pathology_screen.errors import InputError
from pathology_screen.io import decoder_process
from pathology_screen.io.description import words

SECONDS = 30
"""Most that decoding a frame may take; one of 2048 x 2048 pixels takes a second."""
START_SECONDS = 120
"""Most that starting the process may take, on a busy machine."""
MEMORY = 2 * 2**30
"""Most bytes of address space of the process that decodes."""

STATED = words("Rows Columns SamplesPerPixel BitsAllocated BitsStored PixelRepresentation")
"""What a decoder has to know of the image."""
MAX_TILES = 4096
START, END, SCAN = 0xD8, 0xD9, 0xDA
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""SOF: what begins a segment with the size of a JPEG or JPEG-LS image."""
JPEG_2000_END, TILE_PART = b"\xff\xd9", b"\xff\x90"
_MORE = bytes((37 * number * number + 11 * number) % 251 for number in range(2048))
"""Bytes of no pattern, none of which is 255."""


def stored_frames(dataset: Dataset, indices: Sequence[int]) -> np.ndarray:
    """Decode N frames of an image of one grey value a pixel: stored values (N, rows, columns).

    A compressed frame is "unreadable" if it is damaged, cut short or of another size, "undecodable"
    if the decoder fails on it otherwise. Where uncompressed pixels are damaged, pydicom raises
    errors of many kinds.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        decoder = get_decoder(syntax)
        return np.stack([decoder.as_array(dataset, index=index)[0] for index in indices])
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    options: dict[str, Any] = {
        re.sub(r"\B([A-Z])", r"_\1", keyword).lower(): int(dataset[keyword].value)
        for keyword in STATED
    }
    options |= {"syntax": str(syntax), "number_of_frames": 1, "pixel_keyword": "PixelData"}
    options |= {"photometric_interpretation": "MONOCHROME2"}  # inverted later
    return np.stack([_decoded(frames[index], syntax, options) for index in indices])


def _decoded(frame: bytes, syntax: uid.UID, options: dict[str, Any]) -> np.ndarray:
    size = options["rows"], options["columns"]
    check_frame(frame, syntax, *size, options["bits_allocated"])
    pixels = _process.decode(frame, options)
    if pixels.shape != size or pixels.dtype.kind not in "iu":
        raise _damaged("decodes to another size")
    if syntax in uid.JPEGTransferSyntaxes:
        # with more scan data it decodes alike, unless its own ended too soon
        end = frame.rindex(b"\xff\xd9")
        longer = frame[:end] + _MORE + frame[end:]
        if not np.array_equal(pixels, _process.decode(longer, options)):
            raise _damaged("is cut short: its scan data end too soon")
    return pixels


# --- what a compressed frame says of itself ---


def check_frame(frame: bytes, syntax: uid.UID, rows: int, columns: int, bits: int) -> None:
    """Refuse the codestream of one frame, padded to even length, that is cut short or has not the
    stated size, one sample a pixel and at most so many bits: "unreadable"; and what is none of a
    known kind: "unsupported_compression"."""
    try:
        if syntax == uid.RLELossless:
            return _check_run_lengths(frame, bits // 8)
        if syntax in uid.JPEG2000TransferSyntaxes:
            *found, tiles, end = _jpeg_2000(frame)
        elif syntax in uid.JPEGTransferSyntaxes:  # neither a stuffed byte nor a restart marker
            *found, tiles, end = _jpeg(frame, rb"\xff[\x01-\xcf\xd8-\xfe]")
        elif syntax in uid.JPEGLSTransferSyntaxes:  # stuffs a bit
            *found, tiles, end = _jpeg(frame, rb"\xff[\x80-\xcf\xd8-\xfe]")
        else:
            raise InputError("unsupported_compression", syntax.name)
    except (struct.error, IndexError):
        raise _damaged("is cut short") from None
    if found[:3] != [rows, columns, 1] or not 0 < found[3] <= bits:
        has = "{} x {} pixels of {} x {} bits".format(*found)
        raise _damaged(f"has {has}, not {rows} x {columns} of one sample of up to {bits} bits")
    if tiles > MAX_TILES:
        raise _damaged(f"has {tiles} tiles; at most {MAX_TILES} are read")
    if frame[end:].strip(b"\0"):
        raise _damaged("goes on behind its end")
    return None


def _damaged(how: str) -> InputError:
    return InputError("unreadable", f"a compressed frame {how}")


def _check_run_lengths(frame: bytes, segments: int) -> None:
    count, *offsets = struct.unpack_from("<16I", frame)
    used = offsets[:count]
    rising = all(one < other for one, other in zip(used, [*used[1:], len(frame)]))
    if count != segments or used[0] != 64 or not rising or any(offsets[count:]):
        raise _damaged(f"has {count} run-length segments, or places them wrongly")


def _jpeg(frame: bytes, scan_end: bytes) -> tuple[int, ...]:
    """Rows, columns, samples, bits and tiles (one) of a whole JPEG or JPEG-LS image, and its end;
    `scan_end` is the pattern of what ends the data of a scan."""
    at, marker, found = 0, None, ()
    while marker != END:
        while frame[at : at + 2] == b"\xff\xff":
            at += 1  # fill bytes
        prefix, marker = frame[at], frame[at + 1]
        if prefix != 0xFF or (marker == START) != (at == 0):
            raise _damaged("is damaged: no marker where one should be")
        at += 2
        if marker in (START, END):
            continue
        if marker in FRAME_MARKERS:
            if found:
                raise _damaged("states its size twice")
            bits, *size, samples = struct.unpack_from(">BHHB", frame, at + 2)
            found = (*size, samples, bits, 1)
        at += struct.unpack_from(">H", frame, at)[0]
        if marker == SCAN:
            following = re.compile(scan_end).search(frame, at)
            if following is None:
                raise _damaged("is cut short: its end marker is missing")
            at = following.start()
    if not found:
        raise _damaged("states no size")
    return (*found, at)


def _jpeg_2000(frame: bytes) -> tuple[int, ...]:
    """Rows, columns, samples, bits and tiles of a whole JPEG 2000 codestream, and its end."""
    # in a JP2 file, which DICOM does not allow, the codestream begins behind the boxes
    at = frame.find(b"\xff\x4f\xff\x51") if frame[4:8] == b"jP  " else 0
    soc, siz, length, _, *grid, samples = struct.unpack_from(">HHHH8IH", frame, at)
    if (soc, siz) != (0xFF4F, 0xFF51):
        raise _damaged("is no JPEG 2000 codestream")
    right, bottom, left, top, columns, rows, from_left, from_top = grid
    across = math.ceil((right - from_left) / max(columns, 1))
    tiles = across * math.ceil((bottom - from_top) / max(rows, 1))
    bits = max((frame[at + 42 + 3 * sample] & 0x7F) + 1 for sample in range(max(samples, 1)))
    at += 4 + length
    while True:
        marker, length = struct.unpack_from(">HH", frame, at)
        if frame[at : at + 2] != TILE_PART:
            if marker < 0xFF00 or length < 2:
                raise _damaged("is damaged: no marker where one should be")
            at += 2 + length
            continue
        (part,) = struct.unpack_from(">I", frame, at + 6)
        if 0 < part < 14:
            raise _damaged("is damaged: a tile part without data")
        at = at + part if part else frame.rfind(JPEG_2000_END, at)  # of 0 bytes: up to the end
        if frame[at : at + 2] == JPEG_2000_END:
            return bottom - top, right - left, samples, bits, tiles, at + 2
        if at < 0 or frame[at : at + 2] != TILE_PART:
            raise _damaged("is cut short: a tile part ends too soon")


# --- the process that decodes ---


class DecoderProcess:
    """A process that decodes, started when needed, after it was lost, and after a fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def decode(self, frame: bytes, options: dict[str, Any]) -> np.ndarray:
        """Decode a compressed frame; "unreadable" where the decoder refuses it or warns,
        "undecodable" where it takes too long or too much memory, or crashes."""
        request = json.dumps({**options, "length": len(frame)}).encode() + b"\n" + frame
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                try:
                    self.process = subprocess.Popen(
                        [sys.executable, "-P", decoder_process.__file__, str(MEMORY), str(SECONDS)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                        start_new_session=True,  # Ctrl-C is for this process
                    )
                except OSError:  # of the machine, not of the scan
                    raise InputError("undecodable", "the decoder cannot be started") from None
                self._answer(self.process, b"", START_SECONDS)  # it is ready
            header, data = self._answer(self.process, request, SECONDS)
        if header.get("error") == "MemoryError":
            detail = f"the decoder asked for more than {MEMORY // 2**20} MiB"
            raise InputError("undecodable", detail)
        if "error" in header:
            raise _damaged(f"is damaged: {header['error']}")
        return np.frombuffer(data, np.dtype(header["dtype"])).reshape(header["shape"])

    def _answer(
        self, process: subprocess.Popen[bytes], request: bytes, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        """Send a request and read the answer; "undecodable" where the process is lost meanwhile, or
        has to be killed as it takes longer."""
        assert process.stdin and process.stdout
        expires = time.monotonic() + seconds
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(request)
            process.stdin.flush()
            header = json.loads(process.stdout.readline())
            data = process.stdout.read(header["length"])
            if len(data) < header["length"]:
                raise OSError
        except (OSError, ValueError):
            self.stop()
            how = "crashed" if time.monotonic() < expires else f"took more than {seconds} s"
            raise InputError("undecodable", f"the decoder {how}") from None
        except BaseException:
            self.stop()  # interrupted: what it would answer now is for nobody
            raise
        finally:
            timer.cancel()
        return header, data

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()


_process = DecoderProcess()
atexit.register(_process.stop)
if hasattr(os, "register_at_fork"):
    # a process that was forked leaves it to the other
    os.register_at_fork(after_in_child=lambda: DecoderProcess.__init__(_process))
