"""The cohort of the paper: fastMRI+ and IXI, prepared one by one, in one datalist (section 4 and
Appendix B)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathology_screen.cohorts.datalist import FILE_KEYS
from pathology_screen.cohorts.preparation import (
    begin,
    listed,
    name_some,
    read_notes,
    read_sections,
    write_datalist,
)
from pathology_screen.errors import ConfigError

DESCRIPTION = (
    "Bercea et al., MIDL 2023: training on healthy fastMRI+ and IXI subjects, validation and test on fastMRI+. No "
    "section for calibration: the paper fits its threshold on the test normals."
)
SECTIONS = ("training", "validation", "test")


def prepare_paper(
    fastmri: str | os.PathLike,
    ixi: str | os.PathLike,
    output: str | os.PathLike,
    *,
    allow_missing: bool = False,
) -> Path:
    """Write the datalist of both cohorts; return its path.

    The sections are those of fastMRI+, with all IXI subjects of the paper (`data_lists/ixi.csv`) in
    training, whatever their section in the IXI datalist. No image is copied: the paths lead to both
    folders.

    Args:
        fastmri: folder or datalist that `prepare_fastmri` made.
        ixi: folder or datalist that `prepare_ixi` made.
        output: folder of the new datalist.
        allow_missing: go on where IXI subjects are missing; they stand in the notes.

    Raises:
        ConfigError: see `load_datalist`; or if a datalist is not of its cohort, IXI subjects are
            missing, or theirs are extracted brains.
    """
    lists = [_datalist(folder) for folder in (fastmri, ixi)]
    sections, ixi_sections = (read_sections(path) for path in lists)
    _check_fastmri(lists[0], sections)
    _check_domain(lists[1])
    wanted = {row["subject"] for row in listed("ixi.csv")}
    items = _by_subject(lists[1], ixi_sections)
    missing, further = sorted(wanted - items.keys()), sorted(items.keys() - wanted)
    if wanted == set(missing) or (missing and not allow_missing):
        raise ConfigError(
            f"{lists[1]} lacks {len(missing)} of the {len(wanted)} subjects of the paper: {name_some(missing)}. With "
            "--allow-missing the cohort is made of those that are there"
        )
    folder = begin(output, {"cohort": "paper"})
    merged = {section: [_from(folder, item) for item in sections[section]] for section in SECTIONS}
    merged["training"] += [
        _from(folder, items[subject]) for subject in sorted(wanted & items.keys())
    ]
    notes = {
        "IXI subject not found": missing,
        "IXI subject that is not in the paper's list, left out": further,
    }
    return write_datalist(
        folder, merged, DESCRIPTION, notes={**read_notes(lists[0]), **read_notes(lists[1]), **notes}
    )


def _datalist(path: str | os.PathLike) -> Path:
    return Path(path) / "datalist.json" if Path(path).is_dir() else Path(path)


def _check_fastmri(path: Path, sections: Mapping[str, list[dict[str, Any]]]) -> None:
    """Refuse a datalist whose subjects are not those of the paper's split, in its sections."""
    home = {row["file"]: row["section"] for row in listed("fastmri.csv")}
    wrong = [
        item["subject"]
        for section, items in sections.items()
        for item in items
        if home.get(item["subject"]) != section
    ]
    if wrong or sections.keys() != set(SECTIONS):
        named = f": {wrong[0]} does not belong there" if wrong else ""
        raise ConfigError(
            f"{path} is not the datalist of fastMRI+ that `pathology-screen prepare fastmri` makes{named}"
        )


def _check_domain(ixi: Path) -> None:
    """Refuse slices of IXI without skull, for those of fastMRI are whole heads."""
    options = ixi.with_name("preparation.json")
    if (
        options.is_file()
        and json.loads(options.read_text("utf-8")).get("domain") == "brain_extracted"
    ):
        raise ConfigError(
            f"{ixi} holds extracted brains, but the paper trains on whole heads: prepare IXI again"
        )


def _by_subject(
    path: Path, sections: Mapping[str, list[dict[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """Subject -> its one item, whatever the section."""
    items: dict[str, dict[str, Any]] = {}
    for item in (item for section in sections.values() for item in section):
        if items.setdefault(item["subject"], item) is not item:
            raise ConfigError(
                f"{path} holds several images of {item['subject']}; the paper takes one of each subject"
            )
    return items


def _from(folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
    """An item with the paths of its files relative to a folder."""
    paths = {
        key: Path(os.path.relpath(item[key], folder)).as_posix() for key in FILE_KEYS if key in item
    }
    return {**item, **paths}
