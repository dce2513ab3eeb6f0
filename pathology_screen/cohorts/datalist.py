"""Datalists in the form of the Medical Segmentation Decathlon: read and checked."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from monai.data import load_decathlon_datalist

from pathology_screen.cohorts.phantom import make_phantom_cohort
from pathology_screen.errors import ConfigError

FILE_KEYS = ("image", "label")


def resolve_dataset(
    dataset_dir: str | os.PathLike | None = None,
    datalist: str | os.PathLike | None = None,
    *,
    section: str,
) -> list[dict[str, Any]]:
    """Items of one section, from a user's data or, where none is named, from the embedded cohort.

    Args:
        dataset_dir: folder that the paths in the datalist are relative to; default the datalist's
            own.
        datalist: JSON file; default `dataset_dir/datalist.json`. With neither, the phantom cohort,
            made on first use.
        section: "training", "validation", "calibration" or "test".

    Raises:
        ConfigError: see `load_datalist`.
    """
    if not datalist:
        datalist = Path(dataset_dir) / "datalist.json" if dataset_dir else make_phantom_cohort()
    return load_datalist(datalist, section, base_dir=dataset_dir or None)


def load_datalist(
    path: str | os.PathLike, section: str, *, base_dir: str | os.PathLike | None = None
) -> list[dict[str, Any]]:
    """Read one section of a datalist.

    Args:
        path: JSON file with lists of items `{"image": path, "subject": id, ...}`; without `subject`
            the path of the image stands for it.
        section: key of the list.
        base_dir: folder that the paths are relative to; default the datalist's own.

    Returns:
        The items, `image` and `label` as absolute paths or paths from the working directory.

    Raises:
        ConfigError: if the datalist is not readable, lacks the section, names a missing file, names
            an image twice, or holds the same subject in two sections.
    """
    path = Path(path)
    sections = _read_sections(path)
    if section not in sections:
        raise ConfigError(
            f'{path.name} has no section "{section}"; it has {", ".join(sections) or "none"}'
        )
    _check_split(path.name, sections)
    if not sections[section]:
        return []
    items = load_decathlon_datalist(path, data_list_key=section, base_dir=base_dir)
    # MONAI takes any value for a path where a file of that name exists, a subject's id for one;
    # undo that
    items = [
        {"subject": raw["image"]} | raw | {key: item[key] for key in FILE_KEYS if key in item}
        for raw, item in zip(sections[section], items)
    ]
    _check_files(path.name, items)
    return items


def _read_sections(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The lists of items of a datalist; plain file names become items."""
    if not path.is_file():
        raise ConfigError(f"the datalist {path.name} does not exist")
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"the datalist {path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the datalist {path.name} is not a JSON object with sections")
    sections = {}
    for name, value in content.items():
        if isinstance(value, list):
            sections[name] = [{"image": item} if isinstance(item, str) else item for item in value]
            if not all(
                isinstance(item, dict) and isinstance(item.get("image"), str)
                for item in sections[name]
            ):
                raise ConfigError(f'an item of section "{name}" of {path.name} has no image path')
    return sections


def _check_split(name: str, sections: dict[str, list[dict[str, Any]]]) -> None:
    home: dict[str, str] = {}
    owner: dict[str, str] = {}
    for section, items in sections.items():
        image, times = (
            Counter(item["image"] for item in items).most_common(1)[0] if items else ("", 1)
        )
        if times > 1:
            raise ConfigError(
                f'{name} names {Path(image).name} {times} times in section "{section}"'
            )
        for item in items:
            subject = str(item.get("subject", item["image"]))
            if home.setdefault(subject, section) != section:
                raise ConfigError(
                    f'{name} has subject {subject} in the sections "{home[subject]}" and "{section}"'
                )
            if owner.setdefault(item["image"], subject) != subject:
                raise ConfigError(f"{name} gives {Path(item['image']).name} to two subjects")


def _check_files(name: str, items: list[dict[str, Any]]) -> None:
    missing = [
        item[key]
        for item in items
        for key in FILE_KEYS
        if key in item and not Path(item[key]).exists()
    ]
    if missing:
        raise ConfigError(
            f"{name} names {Path(missing[0]).name}, which does not exist ({len(missing)} missing in all); "
            "its paths are relative to dataset_dir, or else to the datalist"
        )
