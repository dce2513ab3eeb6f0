"""Datalists in the form of the Medical Segmentation Decathlon: read, checked and written."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathology_screen.errors import ConfigError
from pathology_screen.files import replacing

FILE_KEYS = ("image", "label")
SECTIONS = ("training", "validation", "calibration", "test")
Item = dict[str, Any]


def resolve_dataset(
    dataset_dir: str | os.PathLike | None = None,
    datalist: str | os.PathLike | None = None,
    *,
    section: str,
) -> list[Item]:
    """Return the items of one section, see `load_datalist`, from a user's data or, where none is
    named, from the embedded cohort, made on first use.

    Args:
        dataset_dir: folder that the paths are relative to; default the datalist's own.
        datalist: JSON file; default `dataset_dir/datalist.json`.
        section: one of `SECTIONS`.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "one.png").touch()
    >>> _ = write_datalist(folder, {"test": [{"image": "one.png"}]}, "one slice")
    >>> [item["subject"] for item in resolve_dataset(folder, section="test")]
    ['one.png']
    """
    from pathology_screen.cohorts.phantom import make_phantom_cohort

    if not datalist:
        datalist = Path(dataset_dir) / "datalist.json" if dataset_dir else make_phantom_cohort()
    return load_datalist(datalist, section, base_dir=dataset_dir or None)


def load_datalist(
    path: str | os.PathLike, section: str, *, base_dir: str | os.PathLike | None = None
) -> list[Item]:
    """Read one section of a datalist, a JSON file with lists of items `{"image": path, "subject":
    id, ...}`; without `subject` the path of the image stands for it.

    `image` and `label` are relative to `base_dir`, by default the datalist's folder, and returned
    as absolute paths or paths from the working directory.

    Raises:
        ConfigError: if the datalist is not readable, lacks the section, names a missing file, names
            an image twice, or holds the same subject in two sections.
    """
    path = Path(path)
    base = Path(base_dir or path.parent)
    sections, _ = _read(path)
    if section not in sections:
        there = ", ".join(sections) or "none"
        raise ConfigError(f'{path.name} has no section "{section}"; it has {there}')
    items = [{"subject": item["image"], **item} for item in sections[section]]
    for item in items:
        item |= {key: os.path.normpath(base / item[key]) for key in FILE_KEYS if key in item}
    named = [Path(item[key]) for item in items for key in FILE_KEYS if key in item]
    missing = [file.name for file in named if not file.exists()]
    if missing:
        raise ConfigError(
            f"{path.name} names {missing[0]}, which does not exist ({len(missing)} missing in all);"
            " its paths are relative to dataset_dir, or else to the datalist"
        )
    return items


def load_sections(path: Path) -> dict[str, list[Item]]:
    """Every section of a datalist as `load_datalist` reads it, which says what is raised."""
    return {section: load_datalist(path, section) for section in _read(path)[0]}


def read_notes(path: Path) -> dict[str, list[str]]:
    """The notes of a datalist: note -> names; empty where it has none."""
    return _read(path)[1]


def write_datalist(
    output: str | os.PathLike,
    sections: Mapping[str, Sequence[Mapping[str, Any]]],
    description: str,
    *,
    notes: Mapping[str, Sequence[str]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write `output/datalist.json`, whole and valid or not at all: a ConfigError says what
    `load_datalist` refuses.

    The images of the items, see `data_lists/README.md`, are relative to the folder. Notes lead from
    what there is to know of some files or subjects to their names; `options`, what the cohort was
    made with, stand in place of them.
    """
    path = Path(output) / "datalist.json"
    kept = {note: list(names) for note, names in (notes or {}).items() if names}
    content = {
        "name": path.parent.resolve().name,
        "description": description,
        "modality": {"0": "T1w"},
        **({"options": options} if options else {"notes": kept}),
        **{section: list(items) for section, items in sections.items()},
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        try:
            load_sections(temporary)
        except ConfigError as error:
            raise ConfigError(str(error).replace(temporary.name, path.name)) from None
    return path


def _read(path: Path) -> tuple[dict[str, list[Item]], dict[str, list[str]]]:
    """Sections, in which plain file names become items, and notes."""
    if not path.is_file():
        raise ConfigError(f"the datalist {path.name} does not exist")
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"the datalist {path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the datalist {path.name} is not a JSON object with sections")
    sections = {}
    home: dict[str, str] = {}
    owner: dict[str, str] = {}
    for section, value in content.items():
        if not isinstance(value, list):
            continue
        items = [{"image": item} if isinstance(item, str) else item for item in value]
        if not all(isinstance(it, dict) and isinstance(it.get("image"), str) for it in items):
            raise ConfigError(f'an item of section "{section}" of {path.name} has no image path')
        times = Counter(item["image"] for item in items)
        for item in items:
            image, subject = item["image"], str(item.get("subject", item["image"]))
            file = Path(image).name
            if times[image] > 1:
                often = f'{file} {times[image]} times in section "{section}"'
                raise ConfigError(f"{path.name} names {often}")
            if home.setdefault(subject, section) != section:
                both = f'"{home[subject]}" and "{section}"'
                raise ConfigError(f"{path.name} has subject {subject} in the sections {both}")
            if owner.setdefault(image, subject) != subject:
                raise ConfigError(f"{path.name} gives {file} to two subjects")
        sections[section] = items
    return sections, content.get("notes", {})
