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
from functools import partial
from typing import Any, BinaryIO

from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

PLUGINS = {
    "1.2.840.10008.1.2.5": "pydicom",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
}
"""Transfer syntax -> the one decoder that is asked: the strictest. All others: pylibjpeg."""


def plugin_of(syntax: str) -> str:
    """Name the decoder of pydicom that is asked for a transfer syntax."""
    return PLUGINS.get(str(syntax), "pylibjpeg")


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


def decode(frame: bytes, options: dict[str, Any]) -> Any:
    """Decode one frame, (rows, columns); raises whatever the decoder raises, warnings too."""
    syntax = options.pop("syntax")
    warnings.simplefilter("error")
    options |= {"index": 0, "raw": True, "decoding_plugin": plugin_of(syntax)}
    return get_decoder(syntax).as_array(encapsulate([frame], has_bot=False), **options)[0]


def answer(
    frame: bytes, options: dict[str, Any], printed: BinaryIO
) -> tuple[dict[str, Any], bytes]:
    """The pixels, or the kind of error alone: its text might repeat what the file holds."""
    printed.seek(0)
    printed.truncate()
    try:
        pixels = decode(frame, options)
    except BaseException as error:  # a decoder written in Rust panics with what is no Exception
        return {"error": type(error).__name__, "length": 0}, b""
    if printed.seek(0, os.SEEK_END):
        return {"error": "the decoder complained", "length": 0}, b""
    data = pixels.tobytes()
    return {"dtype": pixels.dtype.str, "shape": pixels.shape, "length": len(data)}, data


def main(memory: int, seconds: int) -> None:
    """Serve frames until standard input ends."""
    limit(memory)
    send = partial(_send, os.fdopen(os.dup(1), "wb"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other end sees to it
    requests = os.fdopen(os.dup(0), "rb")
    send({"length": 0}, b"")  # ready
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        while line := requests.readline():
            options = json.loads(line)
            frame = requests.read(options.pop("length"))
            if hasattr(signal, "alarm"):
                signal.alarm(seconds + 5)  # should the other end be gone
            header, data = answer(frame, options, printed)
            if hasattr(signal, "alarm"):
                signal.alarm(0)
            send(header, data)


def _send(replies: BinaryIO, header: dict[str, Any], data: bytes) -> None:
    replies.write(json.dumps(header).encode() + b"\n" + data)
    replies.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
