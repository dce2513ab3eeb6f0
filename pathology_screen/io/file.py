"""A file on disk or in an archive, opened for a parser that may choke on it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, Protocol, cast

from pathology_screen.errors import InputError, ScreeningError


class File(Protocol):
    """A `Path`, or a member of an archive. Names may be those of patients: no refusal repeats
    them."""

    @property
    def name(self) -> str:
        """Last part of its path."""

    def open(self, mode: Literal["rb"]) -> Any:
        """Open it for reading bytes."""


class _Nameless(io.BufferedReader):
    name = "(not named)"  # parsers put the name of a stream into their warnings


@contextmanager
def parsing(what: str = "") -> Iterator[None]:
    """Turn whatever a damaged file makes a parser raise into "unreadable".

    The parser's message may repeat the file's content, hence a patient's data: only the kind of
    error is passed on, and `what` could not be read, where that is said.
    """
    try:
        yield
    except (ScreeningError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a decoder written in Rust panics with what is no Exception
        kind = type(error).__name__
        raise InputError("unreadable", f"{what}: {kind}" if what else kind) from None


@contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, `parsing` it."""
    with parsing(), _Nameless(cast(io.RawIOBase, file.open("rb"))) as stream:
        yield stream


@contextmanager
def one_of(file: File, files: Sequence[File]) -> Iterator[None]:
    """Say in a refusal which one of several files it is about: by its place in the order of their
    names."""
    try:
        yield
    except InputError as error:
        if len(files) == 1:
            raise
        place = (
            f"file {sorted(map(str, files)).index(str(file)) + 1} of {len(files)} in order of names"
        )
        detail = f"{place}: {error.detail}" if error.detail else place
        raise InputError(error.code, detail, error.hint) from None
