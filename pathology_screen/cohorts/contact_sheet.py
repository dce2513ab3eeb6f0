"""What lets a person check a cohort: a table of its datalist, and pictures of its scans."""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from pathology_screen.cohorts.datalist import Item, load_sections, read_notes
from pathology_screen.cohorts.preparation import name_some
from pathology_screen.errors import ConfigError
from pathology_screen.files import replacing
from pathology_screen.geometry import DISPLAY_AXES
from pathology_screen.io import read_scan
from pathology_screen.transforms.load import READ_BY_READER

COLUMNS = 8
"""Most pictures in a row."""


def summary(datalist: Path) -> str:
    """A table of a datalist, a line for each group of each section, and its notes."""
    rows = [("section", "group", "images", "subjects", "boxes")]
    for section, group, items in _groups(datalist):
        subjects = len({item["subject"] for item in items})
        boxes = sum(len(item.get("boxes", [])) for item in items)
        rows.append((section, group, str(len(items)), str(subjects), str(boxes)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    line = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<<>>>", widths))
    notes = [f"{note}: {len(of)} ({name_some(of)})" for note, of in read_notes(datalist).items()]
    return "\n".join([*(line.format(*row) for row in rows), *notes])


def contact_sheet(datalist: Path) -> Path:
    """Draw scans of every group of every section, with their boxes, so that a person can check
    orientation and boxes: `contact_sheet.png` beside the datalist; ConfigError if that is empty.

    A row shows up to `COLUMNS` scans, spread over the group: a single slice as it is, of a volume
    the slice of the largest box, else the middle one. Anterior is up and the patient's right is
    left, as the files say.
    """
    path = datalist.with_name("contact_sheet.png")
    rows = _groups(datalist)
    if not rows:
        raise ConfigError(f"{datalist.name} holds no scan to draw")
    figure = Figure(figsize=(2 * COLUMNS, 2.6 * len(rows)), layout="constrained", facecolor="black")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (section, group, items) in zip(parts, rows):
        part.suptitle(f"{section}: {group} ({len(items)})", color="white", fontsize=11)
        shown = np.linspace(0, len(items) - 1, min(COLUMNS, len(items))).round().astype(int)
        axes = part.subplots(1, COLUMNS)
        for axis in axes:
            axis.axis("off")
        for axis, number in zip(axes, shown):
            _draw(axis, items[number])
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
    return path


def _groups(datalist: Path) -> list[tuple[str, str, list[Item]]]:
    """Section, group and items; the group is the item's `group`, else its `pathology`."""

    def group_of(item: Item) -> str:
        return str(item.get("group", item.get("pathology", "healthy")))

    return [
        (section, group, list(members))
        for section, items in load_sections(datalist).items()
        for group, members in groupby(sorted(items, key=group_of), group_of)
    ]


def display_slice(
    item: Mapping[str, Any],
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, list[float]]]]:
    """The slice that the contact sheet shows of an item (rows to posterior, columns to the
    patient's left), float32; the size of a pixel in mm (rows, columns); and the boxes on it: label
    and [column, row, width, height] of the outer edges; pixel (r, c) spans c - 0.5 to c + 0.5."""
    options = {name: item[name] for name in READ_BY_READER if name in item}
    scan = read_scan(item["image"], **options)
    turn = ornt_transform(io_orientation(scan.affine), axcodes2ornt(DISPLAY_AXES))
    volume = nib.Nifti1Image(scan.voxels, scan.affine).as_reoriented(turn)
    to_display = np.linalg.inv(inv_ornt_aff(turn, scan.voxels.shape))
    boxes, shown, largest = [], volume.shape[2] // 2, 0.0
    for box in item.get("boxes", []):
        (x, y, w, h), k = box["box"], box["slice"]
        corners = [[x - 0.5, y - 0.5, k], [x + w - 0.5, y + h - 0.5, k]]
        low, high = np.sort(nib.affines.apply_affine(to_display, corners), axis=0)
        turned, level = [low[1], low[0], high[1] - low[1], high[0] - low[0]], int(np.rint(low[2]))
        boxes.append((box["label"], turned, level))
        if turned[2] * turned[3] > largest:
            shown, largest = level, turned[2] * turned[3]
    pixel = np.asarray(volume.header.get_zooms()[:2])
    on_it = [(label, turned) for label, turned, level in boxes if level == shown]
    return np.asarray(volume.dataobj)[..., shown], pixel, on_it


def _draw(axis: Any, item: Mapping[str, Any]) -> None:
    image, pixel, boxes = display_slice(item)
    brightest, aspect = np.percentile(image, 99.5), float(pixel[0] / pixel[1])
    axis.imshow(image, cmap="gray", vmin=0, vmax=brightest, aspect=aspect)
    for number, (_, (column, row, *size)) in enumerate(boxes):
        color = f"C{number % 10}"
        axis.add_patch(Rectangle((column, row), *size, fill=False, linewidth=1, color=color))
    style = {"color": "yellow", "fontsize": 7, "ha": "center", "va": "center"}
    for letter, x, y in (("A", 0.5, 0.97), ("P", 0.5, 0.03), ("R", 0.03, 0.5), ("L", 0.97, 0.5)):
        axis.text(x, y, letter, transform=axis.transAxes, **style)
    names = ", ".join(sorted({name for name, _ in boxes}))
    axis.set_title(f"{item['subject']}\n{names}", color="white", fontsize=6)
