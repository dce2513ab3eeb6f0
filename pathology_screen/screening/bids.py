"""Screen a BIDS dataset as BIDS Apps are called: one participant level, one group level."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from pathology_screen.errors import ConfigError, RunError
from pathology_screen.files import text_sha256, write_text
from pathology_screen.io import FoundScan, source_id
from pathology_screen.io.find import ENTITIES, entities_of, t1w_images
from pathology_screen.outputs.results import all_finished, free_name
from pathology_screen.outputs.worklist import save_overview
from pathology_screen.screening.batch import Batch, Item
from pathology_screen.screening.screener import Screener

UNNAMED = ("*.html", "*.csv", "/run.json", "*_screening.json", "*_panel.png", "*_map.*", "*_dicom/")
"""Files of results that BIDS has no name for, as patterns of `.bidsignore`."""


def find_images(
    root: Path,
    participants: Collection[str] = (),
    sessions: Collection[str] = (),
    validate: bool = True,
) -> tuple[list[Item], list[Path]]:
    """Find the T1w images of a BIDS dataset, of these labels (with or without `sub-` and `ses-`) or
    all: the images, named by their entities; and those that are passed over, of a contrast agent
    (`ce-`), and without validation those whose names break the rules. ConfigError where the dataset
    breaks them, or lacks a participant or a session."""
    if validate:
        _check_description(root / "dataset_description.json")
    wanted = {
        "sub": {label.removeprefix("sub-") for label in participants},
        "ses": {label.removeprefix("ses-") for label in sessions},
    }
    items, passed_over, there = [], [], set[tuple[str, str]]()
    for path in t1w_images(root):
        found = ENTITIES.fullmatch(entities_of(path.absolute()) or "")
        if found is None:
            if validate:
                raise ConfigError(
                    f"{path.relative_to(root)} is no name of BIDS for a T1w image: rename it, or "
                    "pass such images over with --skip-bids-validation"
                )
            passed_over.append(path)
        elif all(not of or label in of for of, label in zip(wanted.values(), found.groups())):
            if "_ce-" in found[0]:
                passed_over.append(path)
            else:
                items.append(Item(found[0], FoundScan(path, (path,), None, source_id(path))))
                there |= set(zip(wanted, found.groups()))
    asked = [(kind, label) for kind, of in wanted.items() for label in sorted(of)]
    missing = ", ".join("-".join(one) for one in asked if one not in there)
    if missing or not items:
        lacking = f" of {missing}" if missing else ": sub-*/[ses-*/]anat/*_T1w.nii.gz"
        raise ConfigError(f"the BIDS dataset {root.name} holds no T1w image{lacking}")
    names = [item.name for item in items]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{twice[0]}_T1w is there as .nii and .nii.gz: keep one of them")
    return items, passed_over


def _check_description(path: Path) -> None:
    try:
        content = json.loads(path.read_text("utf-8"))
        raw = content["Name"] and content["BIDSVersion"] and content.get("DatasetType", "raw")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raw = None
    if raw != "raw":
        raise ConfigError(
            f"{path.parent.name}/{path.name} does not describe a raw BIDS dataset by Name and "
            "BIDSVersion: complete it, or pass --skip-bids-validation"
        )


def screen_participants(
    screener: Screener, items: Sequence[Item], folder: Path, report: bool = True
) -> int:
    """Screen images into a BIDS derivative, and return the exit status as `Batch.summarize` does.
    Several processes may screen participants of their own into one folder at once. ConfigError if
    the dataset lies in the folder; RunError as of `Batch.screen`, or if the folder holds a result
    of another image of the same entities."""
    for item in items:
        if folder.resolve() in (parent.resolve() for parent in item.path.absolute().parents):
            raise ConfigError("the dataset lies in the folder of the results: name another folder")
        if free_name(folder, item.name, item.scan.source_id) != item.name:
            raise RunError(
                f"{folder.name} holds the result of another image named {item.name}: remove its "
                f"{item.name}_screening.json, or choose another folder"
            )
    batch = Batch(screener.judge, items, folder, report=report, exclusive=False)
    batch.screen(screener)
    save_group(folder)
    return batch.summarize()


def save_group(folder: Path) -> int:
    """Write the page and the tables over all results in a folder; return their number, or raise
    RunError where there is none."""
    records = all_finished(folder)
    if not records:
        raise RunError(f"{folder} holds no result: run the level participant first")
    of = f"{records[0]['provenance']['calibration_id']} {folder.resolve()}"
    save_overview(records, folder, text_sha256(of)[:16])
    write_text(folder / ".bidsignore", "".join(f"{pattern}\n" for pattern in UNNAMED))
    return len(records)
