"""A file on disk or in an archive, opened for a parser that may choke on it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pathology_screen.errors import InputError, ScreeningError

File = Path | zipfile.Path
"""Both have `name` and `open("rb")`."""


@contextmanager
def parsing(file: File) -> Iterator[None]:
    """Turn whatever a damaged file makes a parser raise into "unreadable".

    The parser's message may repeat the file's content, hence a patient's data: only the kind of error is passed on.
    """
    try:
        yield
    except (ScreeningError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a decoder written in Rust panics with what is no Exception
        raise InputError("unreadable", f"{file.name}: {type(error).__name__}") from None


@contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, `parsing` it."""
    with parsing(file), file.open("rb") as stream:
        yield cast(BinaryIO, stream)
