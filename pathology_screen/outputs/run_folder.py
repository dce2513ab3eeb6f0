"""A folder of results: one run at a time writes it, of one setting, with a manifest."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pathology_screen.errors import RunError
from pathology_screen.files import write_text

MANIFEST, LOCK = "run.json", ".lock"
SCHEMA_VERSION = 1
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system says that has no locks."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder of results for one run, until the process ends, however it does; not where the
    system or the file system has no such locks (Windows, some network drives). RunError if another
    run is at work in it."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            told = f"another run is writing its results into {folder}: wait for its end"
            raise RunError(told) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(handle)
                raise
        if _is_at(path, handle):
            break
        os.close(handle)  # the run before removed the file between the two steps
    try:
        yield
    finally:
        if _is_at(path, handle):
            path.unlink()
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


class Manifest:
    """`run.json` of a folder of results: the settings (JSON values) of all results in it, the
    versions of the software, and what was found and done of each input. RunError if the folder
    holds results of other settings, or a manifest that cannot be read."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], versions: Mapping[str, str]
    ) -> None:
        self.path = folder / MANIFEST
        now, inputs = json.loads(json.dumps(settings)), dict[str, Any]()
        self.content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "settings": now}
        self.content |= {"versions": dict(versions), "inputs": inputs}
        if not self.path.is_file():
            return
        try:
            earlier = json.loads(self.path.read_text("utf-8"))
            before = earlier["settings"]
            names = (
                name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
            )
            differing = sorted(_difference(name, before.get(name), now.get(name)) for name in names)
            for key, value in earlier["inputs"].items():
                inputs[key] = value | {"names": list(value["names"])}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{MANIFEST} in the folder of the results cannot be read: choose another folder"
            ) from error
        if differing:
            raise RunError(
                f"{folder} holds results of other settings ({', '.join(differing)}): "
                "choose another folder, or repeat the run with the settings of before"
            )

    def note(self, input_id: str, entry: Mapping[str, Any]) -> None:
        """Write what is known of an input, in place of what an earlier run of it left."""
        self.content["inputs"][input_id] = dict(entry)
        write_text(self.path, json.dumps(self.content, indent=2, allow_nan=False) + "\n")

    @property
    def names(self) -> list[str]:
        """The scans that the last run of each input found."""
        entries = self.content["inputs"].values()
        return list(dict.fromkeys(name for entry in entries for name in entry["names"]))


def _difference(name: str, before: Any, now: Any) -> str:
    """The name of a setting, with both values where these are short."""
    texts = json.dumps(before), json.dumps(now)
    short = max(map(len, texts)) <= 60
    return f"{name}: {texts[0]} there, {texts[1]} here" if short else name
