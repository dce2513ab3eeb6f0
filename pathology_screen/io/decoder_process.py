"""The process of `io.decoding`: compressed frames come in on standard input, pixels go out.

A message is a line of JSON, followed by as many bytes as its `length` says. Nothing of the package
is imported, so that it starts fast. The first message goes out when it is ready.
"""

import json
import os
import signal
import sys
import tempfile
import warnings
from typing import Any, BinaryIO

from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder


def plugin_of(syntax: str) -> str:
    """Name the one decoder of pydicom that is asked for a transfer syntax: the strictest."""
    jpeg_ls = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
    run_lengths = "1.2.840.10008.1.2.5"
    return "pyjpegls" if syntax in jpeg_ls else "pydicom" if syntax == run_lengths else "pylibjpeg"


def limit(memory: int) -> None:
    """Bound the address space, and write no core dumps, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, hard))


def answer(
    frame: bytes, syntax: str, printed: BinaryIO, **options: Any
) -> tuple[dict[str, Any], bytes]:
    """The pixels of a frame, or the kind of error alone: its text might repeat what the file holds.
    A warning is an error, and so is what a decoder has `printed`."""
    printed.seek(0)
    printed.truncate()
    options |= {"index": 0, "raw": True, "decoding_plugin": plugin_of(syntax)}
    try:
        encoded = encapsulate([frame], has_bot=False)
        pixels = get_decoder(syntax).as_array(encoded, **options)[0]
    except BaseException as error:  # a decoder written in Rust panics with what is no Exception
        return {"error": type(error).__name__}, b""
    if printed.seek(0, os.SEEK_END):
        return {"error": "the decoder complained"}, b""
    return {"dtype": pixels.dtype.str, "shape": pixels.shape}, pixels.tobytes()


def main(memory: int, seconds: int) -> None:
    """Serve frames until standard input ends."""
    limit(memory)
    warnings.simplefilter("error")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other end sees to it
    set_alarm = getattr(signal, "alarm", lambda seconds: None)  # not on Windows
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    header: dict[str, Any] = {}  # ready
    data = b""
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        while True:
            replies.write(json.dumps({**header, "length": len(data)}).encode() + b"\n" + data)
            replies.flush()
            if not (line := requests.readline()):
                break
            options = json.loads(line)
            frame = requests.read(options.pop("length"))
            set_alarm(seconds + 5)  # should the other end be gone
            header, data = answer(frame, printed=printed, **options)
            set_alarm(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
