"""The files that a path stands for: itself, what lies in the folder or archive, or a list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pathology_screen.io.archive import open_archive
from pathology_screen.io.discover import check_path, files_below, is_zip
from pathology_screen.io.file import File, one_of


@contextmanager
def input_files(path: str | Path | Sequence[str | Path]) -> Iterator[Sequence[File]]:
    """Give the files of a file, folder (at any depth), .zip archive or list of files; those of an
    archive can be read as long as the context lasts.

    Raises:
        InputError: what `check_path`, `files_below` and `open_archive` raise.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(file) for file in path]
    for file in paths:
        with one_of(file, paths):
            check_path(file)
    if not isinstance(path, str | Path):
        yield paths
    elif paths[0].is_dir():
        yield files_below(paths[0])
    elif is_zip(paths[0]):
        with open_archive(paths[0]) as files:
            yield files
    else:
        yield paths
