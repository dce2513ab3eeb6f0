"""Compressed frames are decoded in a process of its own, with bounds on time and memory: a decoder
is C code that may hang, crash or ask for all memory, and this may cost one scan, not the run."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import UID

from pathology_screen.errors import InputError
from pathology_screen.io import decoder_process
from pathology_screen.io.codestream import JPEG, FrameSize, check_frame, with_scan_data_behind

SECONDS = 30
"""Most that decoding a frame may take; one of 2048 x 2048 pixels takes a second."""
START_SECONDS = 120
"""Most that starting the process may take, on a busy machine."""
MEMORY = 2 * 2**30
"""Most bytes of address space of the process that decodes."""


class DecoderProcess:
    """A process that decodes, started when it is first needed, again after it was lost, and anew
    after a fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def decode(self, frame: bytes, options: dict[str, Any]) -> np.ndarray:
        """Pixels of a compressed frame.

        Raises:
            InputError: "unreadable" where the decoder refuses the frame or warns, "undecodable"
                where it takes too long or too much memory, or crashes.
        """
        with self.lock:
            with self._bounded(START_SECONDS):
                process = self._running()
            with self._bounded(SECONDS):
                header, data = _exchange(process, frame, options)
        if header.get("error") == "MemoryError":
            raise InputError(
                "undecodable", f"the decoder asked for more than {MEMORY // 2**20} MiB"
            )
        if "error" in header:
            raise InputError("unreadable", f"a compressed frame is damaged: {header['error']}")
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
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    str(Path(decoder_process.__file__)),
                    str(MEMORY),
                    str(SECONDS),
                ],
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


def decode_frames(frames: Sequence[bytes], syntax: UID, options: dict[str, Any]) -> np.ndarray:
    """Decode the frames of an image of one grey value a pixel.

    Args:
        frames: the codestream of each.
        syntax: their transfer syntax.
        options: of pydicom's decoders: rows, columns, bits_allocated, bits_stored,
            pixel_representation and so on.

    Returns:
        Stored values, (frames, rows, columns), integers.

    Raises:
        InputError: "unreadable" for a frame that is damaged, cut short or of another size,
            "undecodable" for one on which the decoder fails otherwise.
    """
    size = FrameSize(options["rows"], options["columns"], options["bits_allocated"])
    options = {**options, "syntax": str(syntax), "number_of_frames": 1}
    decoded = []
    for frame in frames:
        check_frame(frame, syntax, size)
        pixels = _process.decode(frame, options)
        if pixels.shape != (size.rows, size.columns) or pixels.dtype.kind not in "iu":
            raise InputError("unreadable", "a compressed frame decodes to another size")
        if syntax in JPEG and not np.array_equal(
            pixels, _process.decode(with_scan_data_behind(frame), options)
        ):
            raise InputError(
                "unreadable", "a compressed frame is cut short: its scan data end too soon"
            )
        decoded.append(pixels)
    return np.stack(decoded)
