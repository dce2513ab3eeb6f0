"""What every prepared cohort shares: its folder, its scans and datalist on disk, and what lets a
person check them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from pathology_screen.cohorts.datalist import load_datalist
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.files import replacing
from pathology_screen.geometry import DISPLAY_AXES
from pathology_screen.io import read_scan
from pathology_screen.transforms.load import READ_BY_READER

Sections = Mapping[str, Sequence[Mapping[str, Any]]]
"""Name of a section -> its items, image paths relative to the datalist."""

_PACKAGE = Path(__file__).resolve().parents[1]
COLUMNS = 8
"""Most pictures in a row of the contact sheet."""
SHOWN_NAMES = 5
"""Most names that a message gives of many."""


def listed(name: str) -> list[dict[str, str]]:
    """Rows of a table in `data_lists/` (of the checkout, or the copy that the wheel carries):
    column -> text.

    Raises:
        ConfigError: if there is no such table.
    """
    checkout = _PACKAGE.parent / "data_lists"
    folder = (
        checkout
        if (_PACKAGE.parent / "setup.cfg").exists() and checkout.is_dir()
        else _PACKAGE / "_data_lists"
    )
    return read_table(folder / name)


def read_table(path: Path, columns: Iterable[str] = ()) -> list[dict[str, str]]:
    """Rows of a CSV file: column -> text.

    Raises:
        ConfigError: if the file does not exist or lacks one of the columns.
    """
    if not path.is_file():
        raise ConfigError(f"the table {path} does not exist")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise ConfigError(f"the table {path.name} has no column {', '.join(sorted(missing))}")
        return list(reader)


def name_some(names: Sequence[str]) -> str:
    """The first names of many, for a message."""
    return ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")


def begin(output: str | os.PathLike, options: Mapping[str, Any]) -> Path:
    """Make the folder of a cohort, or go on in one that was begun with the same options.

    Args:
        output: the folder.
        options: what decides the content of its files; plain (JSON), kept in `preparation.json`.

    Raises:
        ConfigError: if the folder holds a cohort that was begun with other options.
    """
    folder = Path(output)
    kept = folder / "preparation.json"
    text = json.dumps(dict(options), indent=1, sort_keys=True) + "\n"
    if kept.is_file() and kept.read_text("utf-8") != text:
        raise ConfigError(
            f"{folder} holds a cohort that was prepared with other options (see {kept.name} there): name another folder"
        )
    with replacing(kept) as temporary:
        temporary.write_text(text, "utf-8")
    return folder


def save_scan(
    path: Path, make: Callable[[], tuple[np.ndarray, np.ndarray]], *, space: str = "scanner"
) -> Path:
    """Write a scan as NIfTI unless it is there; a file that is there is whole, and one that the
    readers accept.

    Args:
        path: `*.nii.gz`.
        make: gives the voxels, (I, J, K) or one slice (I, J), and the affine (4, 4), voxel index ->
            RAS+ mm. It is called only where the file is missing.
        space: what the affine leads to, as NIfTI calls it: "scanner", "mni", or "aligned", where
            directions and sizes are known and the position is not.

    Returns:
        The path.

    Raises:
        InputError: what `read_scan` refuses of it, with the name of the file.
    """
    if not path.is_file():
        voxels, affine = make()
        image = nib.Nifti1Image(voxels.reshape(*voxels.shape, *[1] * (3 - voxels.ndim)), affine)
        image.header.set_xyzt_units("mm")
        image.set_qform(image.affine, code=space)
        image.set_sform(image.affine, code=space)
        with replacing(path) as temporary:
            nib.save(image, temporary)
            try:
                read_scan(temporary, axial_slice=True)
            except InputError as error:
                raise InputError(error.code, f"{path.name}: {error.detail}", error.hint) from None
    return path


def write_datalist(
    output: str | os.PathLike,
    sections: Sections,
    description: str,
    *,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write `output/datalist.json`, whole and valid or not at all.

    Args:
        output: folder of the cohort; the images of the items are relative to it.
        sections: name -> items, see `data_lists/README.md`. An item of one axial slice holds
            `"axial_slice": true`.
        description: of the cohort, in a sentence or two.
        notes: what a reader must know of some files or subjects, such as why they are left out ->
            their names; `summary` shows it.

    Raises:
        ConfigError: what `load_datalist` refuses.
    """
    path = Path(output) / "datalist.json"
    content = {
        "name": path.parent.resolve().name,
        "description": description,
        "modality": {"0": "T1w"},
        "notes": {note: list(names) for note, names in (notes or {}).items() if names},
        **{section: list(items) for section, items in sections.items()},
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        try:
            for section in sections:
                load_datalist(temporary, section)
        except ConfigError as error:
            raise ConfigError(str(error).replace(temporary.name, path.name)) from None
    return path


def read_sections(datalist: Path) -> dict[str, list[dict[str, Any]]]:
    """Every section of a datalist as `load_datalist` reads it.

    Raises:
        ConfigError: see `load_datalist`.
    """
    names = [name for name, value in _content(datalist).items() if isinstance(value, list)]
    return {name: load_datalist(datalist, name) for name in names}


def read_notes(datalist: Path) -> dict[str, list[str]]:
    """The notes of a datalist: note -> names; empty where it has none."""
    return _content(datalist).get("notes", {})


def _content(datalist: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(datalist.read_text("utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"the datalist {datalist} does not exist") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the datalist {datalist} is not a JSON object: {error}") from error


def group_of(item: Mapping[str, Any]) -> str:
    """Group of an item in tables and pictures: its `group`, else its `pathology`, else
    "healthy"."""
    return str(item.get("group", item.get("pathology", "healthy")))


def summary(datalist: Path) -> str:
    """A table of a datalist, a line for each group of each section, and what its notes say of how
    many.

    Raises:
        ConfigError: see `load_datalist`.
    """
    rows = [("section", "group", "images", "subjects", "boxes")]
    for section, items in read_sections(datalist).items():
        for group, members in _by_group(items).items():
            subjects = len({item["subject"] for item in members})
            boxes = sum(len(item.get("boxes", [])) for item in members)
            rows.append((section, group, str(len(members)), str(subjects), str(boxes)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join([*map(str.ljust, row[:2], widths), *map(str.rjust, row[2:], widths[2:])])
        for row in rows
    ]
    for note, names in read_notes(datalist).items():
        lines.append(f"{note}: {len(names)} ({name_some(names)})")
    return "\n".join(lines)


def contact_sheet(datalist: Path, path: Path | None = None) -> Path:
    """Draw scans of every group of every section, with their boxes, so that a person can check
    orientation and boxes.

    A row shows up to `COLUMNS` scans, spread over the group: a single slice as it is, of a volume
    the slice of the largest box, else the middle one. Anterior is up and the patient's right is
    left, as the files say.

    Args:
        datalist: of scans and slices.
        path: of the PNG; default `contact_sheet.png` beside the datalist.

    Raises:
        InputError: if a scan cannot be read.
        ConfigError: see `load_datalist`; or if the datalist is empty.
    """
    path = path or datalist.with_name("contact_sheet.png")
    rows = [
        (f"{section}: {group} ({len(members)})", _spread(members, COLUMNS))
        for section, items in read_sections(datalist).items()
        for group, members in _by_group(items).items()
    ]
    if not rows:
        raise ConfigError(f"{datalist.name} holds no scan to draw")
    figure = Figure(figsize=(2 * COLUMNS, 2.6 * len(rows)), layout="constrained", facecolor="black")
    for part, (title, members) in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows):
        part.suptitle(title, color="white", fontsize=11)
        for axis, item in zip(
            part.subplots(1, COLUMNS), [*members, *[None] * (COLUMNS - len(members))]
        ):
            axis.axis("off")
            if item:
                _draw(axis, item)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
    return path


def _by_group(items: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    return {
        group: list(members) for group, members in groupby(sorted(items, key=group_of), group_of)
    }


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items, evenly spread."""
    return [
        items[i]
        for i in sorted({round(i) for i in np.linspace(0, len(items) - 1, min(count, len(items)))})
    ]


def display_slice(
    item: Mapping[str, Any],
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, list[float]]]]:
    """Read the slice of an item that the contact sheet shows.

    Args:
        item: of `load_datalist`.

    Returns:
        The slice (rows to posterior, columns to the patient's left), float32; the size of a pixel
        in mm (rows, columns); and the boxes on this slice: label and [column, row, width, height]
        of the outer edges, where pixel (r, c) spans c - 0.5 to c + 0.5.
    """
    options = {name: item[name] for name in READ_BY_READER if name in item}
    scan = read_scan(item["image"], **options)
    turn = ornt_transform(io_orientation(scan.affine), axcodes2ornt(DISPLAY_AXES))
    volume = nib.Nifti1Image(scan.voxels, scan.affine).as_reoriented(turn)
    to_display = np.linalg.inv(inv_ornt_aff(turn, scan.voxels.shape))
    boxes = [(box["label"], _turned(box, to_display)) for box in item.get("boxes", [])]
    shown = volume.shape[2] // 2
    if boxes:
        shown = int(max(boxes, key=lambda box: box[1][2] * box[1][3])[1][4])
    image = np.asarray(volume.dataobj)[..., shown]
    return (
        image,
        np.asarray(volume.header.get_zooms()[:2]),
        [(name, box[:4]) for name, box in boxes if box[4] == shown],
    )


def _turned(box: Mapping[str, Any], to_display: np.ndarray) -> list[float]:
    """[column, row, width, height, level] of a box in voxel indices of the stored array, on the
    display's axes."""
    x, y, w, h = box["box"]
    corners = np.array(
        [[x - 0.5, y - 0.5, box["slice"], 1], [x + w - 0.5, y + h - 0.5, box["slice"], 1]]
    )
    low, high = np.sort((corners @ to_display.T)[:, :3], axis=0)
    return [
        float(value)
        for value in (low[1], low[0], high[1] - low[1], high[0] - low[0], np.rint(low[2]))
    ]


def _draw(axis: Any, item: Mapping[str, Any]) -> None:
    image, pixel, boxes = display_slice(item)
    axis.imshow(
        image,
        cmap="gray",
        vmin=0,
        vmax=np.percentile(image, 99.5),
        aspect=float(pixel[0] / pixel[1]),
    )
    names = sorted({name for name, _ in boxes})
    for number, (_, (column, row, width, height)) in enumerate(boxes):
        axis.add_patch(
            Rectangle(
                (column, row), width, height, fill=False, linewidth=1, color=f"C{number % 10}"
            )
        )
    for letter, x, y in (("A", 0.5, 0.97), ("P", 0.5, 0.03), ("R", 0.03, 0.5), ("L", 0.97, 0.5)):
        axis.text(
            x,
            y,
            letter,
            color="yellow",
            fontsize=7,
            transform=axis.transAxes,
            ha="center",
            va="center",
        )
    axis.set_title("\n".join([str(item["subject"]), ", ".join(names)]), color="white", fontsize=6)
