"""The fastMRI+ cohort of the paper: one T1w slice of each listed file, with the boxes of the
annotation table.

Of fastMRI's files (Zbontar et al., arXiv:1811.08839) those of the paper's split are taken, as
`data_lists/fastmri.csv` lists them; the boxes are those of fastMRI+ (Zhao et al.,
arXiv:2109.03812), which the user brings as `brain.csv`.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from tqdm import tqdm

from pathology_screen.cohorts.preparation import (
    begin,
    listed,
    name_some,
    read_table,
    save_scan,
    write_datalist,
)
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.io.file import parsing

PREFIX = "file_brain_AXT1_"
"""How the names of the T1w files without contrast agent begin."""
FINDINGS = {
    "Absent septum pellucidum": "absent septum pellucidum",
    "Craniectomy": "craniotomy",
    "Craniotomy": "craniotomy",
    "Dural thickening": "dural thickening",
    "Edema": "edema",
    "Encephalomalacia": "encephalomalacia",
    "Enlarged ventricles": "enlarged ventricles",
    "Extra-axial mass": "mass",
    "Intraventricular substance": "intraventricular substance",
    "Mass": "mass",
    "Nonspecific lesion": "lesion",
    "Nonspecific white matter lesion": "white matter lesion",
    "Paranasal sinus opacification": "paranasal sinus opacification",
    "Posttreatment change": "posttreatment change",
    "Resection cavity": "resection",
}
"""Label of the annotation table -> one of the 13 local pathologies of the paper (Appendix C.3)."""
NOMINAL_MM = (0.6875, 0.6875, 5.0)
"""Size of a pixel along x and y, and thickness, where a file does not state them: the brain protocol's usual ones."""
DESCRIPTION = (
    "fastMRI brain T1w, one axial slice a file, with fastMRI+ boxes: the split of Bercea et al., MIDL 2023. Arrays run "
    "from left to right and from top to bottom of the picture. fastMRI states neither position nor laterality: the "
    "slice is centred at the origin, and that its left is the patient's right is a convention."
)
COLUMNS = ("file", "slice", "study_level", "x", "y", "width", "height", "label")

Box = tuple[int, int, int, int]
"""(x, y, width, height) in pixels: columns x to x + width - 1, rows y to y + height - 1 of the flipped image."""


@dataclass(frozen=True)
class Entry:
    """One file of the paper's split.

    Attributes:
        file: its name without suffix.
        section: "training", "validation" or "test".
        group: "normal", "global_pathology", "global_artefact", or "local".
        pathology: of the whole image; empty for the groups "normal" and "local".
        boxes: how many the paper counts on this file.
        slice: index of the slice, counted from 0 as in the HDF5 file.
        left_out: label whose boxes the paper does not count on this file, or empty.
    """

    file: str
    section: str
    group: str
    pathology: str
    boxes: int
    slice: int
    left_out: str


@dataclass(frozen=True, eq=False)
class Picture:
    """One slice as its source holds it.

    Attributes:
        pixels: float32, (W, H): column from the left, row from the top of the picture, anterior up.
        millimetres: size of a pixel along both and thickness, or None where the source does not
            state them.
        examination: id of the person's examination, or None where the source does not state it.
    """

    pixels: np.ndarray
    millimetres: tuple[float, float, float] | None
    examination: str | None


def prepare_fastmri(
    source: str | os.PathLike,
    annotations: str | os.PathLike,
    output: str | os.PathLike,
    *,
    slices: Literal["table"] | int | str | os.PathLike = "table",
    allow_missing: bool = False,
) -> Path:
    """Write the slices as NIfTI and a datalist of the sections training, validation and test;
    return its path.

    Every image is one axial slice, (W, H, 1) float32, with the intensities of the source. Items
    hold `subject` (the name of the file), `axial_slice`, `source_slice` and `group`; test items
    also `pathology` ("healthy", or names joined by commas), `boxes` (those that the paper counts,
    by the names in `FINDINGS`) and `other_boxes` (all others
    that are annotated on the slice: neither counted nor healthy), both in the form of
    `phantom.find_boxes`. There is
    no section for calibration: the paper fits its threshold on the test normals.

    Args:
        source: folder that holds, at any depth, fastMRI's HDF5 files with `reconstruction_rss`; or,
            where it holds none, DICOM files that fastMRI+'s own script made of them,
            `<file>_<slice>.dcm`.
        annotations: `brain.csv` of fastMRI+.
        output: folder of the cohort.
        slices: "table": the slices that agree with the paper's lists, 3 where any may; a number:
            this slice of every file; or a CSV with the columns file and slice that overrules the
            table for the files that it names.
        allow_missing: make the cohort of the files that are there; the others stand in the notes.

    Raises:
        ConfigError: if files are missing, a table is not valid, a box lies outside its slice, or
            the folder holds a cohort that was made with other slices or from another kind of
            source.
        InputError: if a file cannot be read faithfully.
    """
    entries, overruled = _choose_slices(slices)
    annotated = read_annotations(annotations)
    kind, sources = find_sources(source, entries)
    missing = [entry.file for entry in entries if entry.file not in sources]
    if not sources or (missing and not allow_missing):
        raise ConfigError(_describe_missing(missing, len(entries), Path(source)))
    folder = begin(output, {"cohort": "fastmri", "source": kind, "slices": overruled})

    notes: dict[str, list[str]] = defaultdict(list, {"not found": missing})
    sections: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    examinations: dict[str, list[Entry]] = defaultdict(list)
    for entry in tqdm(
        [entry for entry in entries if entry.file in sources], "Preparing fastMRI+", unit="file"
    ):
        picture = (_read_hdf5 if kind == "hdf5" else _read_dicom)(sources[entry.file], entry.slice)
        image = save_scan(
            folder / f"{entry.file}_slice-{entry.slice:02d}.nii.gz",
            partial(_scan, picture),
            space="aligned",
        )
        if not picture.millimetres:
            notes[f"pixel size not stated, taken as {NOMINAL_MM[0]} mm"].append(entry.file)
        if picture.examination:
            examinations[picture.examination].append(entry)
        item = _item(entry, image, annotated.get(entry.file, []), picture.pixels.shape, notes)
        if entry.group != "local" or item["boxes"]:
            sections[entry.section].append(item)
    for members in examinations.values():
        if len({entry.section for entry in members}) > 1:
            notes["examination that stands in two sections of the paper's split"] += [
                entry.file for entry in members
            ]
    return write_datalist(folder, sections, DESCRIPTION, notes=notes)


def _choose_slices(slices: str | int | os.PathLike) -> tuple[list[Entry], Any]:
    """The split with its slices, and how they were chosen (JSON)."""
    texts = ("file", "section", "group", "pathology", "left_out")
    entries = [
        Entry(
            **{name: row[name] for name in texts}, boxes=int(row["boxes"]), slice=int(row["slice"])
        )
        for row in listed("fastmri.csv")
    ]
    if slices == "table":
        return entries, "table"
    if isinstance(slices, int):
        return [replace(entry, slice=slices) for entry in entries], slices
    chosen = {}
    for row in read_table(Path(slices), ("file", "slice")):
        if not row["slice"].isdecimal():
            raise ConfigError(
                f"{Path(slices).name}: the slice of {row['file']} is not a number: {row['slice']!r}"
            )
        chosen[row["file"]] = int(row["slice"])
    unknown = chosen.keys() - {entry.file for entry in entries}
    if unknown:
        raise ConfigError(
            f"{Path(slices).name} names {sorted(unknown)[0]}, which is not in the paper's split"
        )
    return [replace(entry, slice=chosen.get(entry.file, entry.slice)) for entry in entries], chosen


def read_annotations(path: str | os.PathLike) -> dict[str, list[tuple[int, str, Box]]]:
    """Read the boxes of the T1w files from fastMRI+'s table: file -> (slice, label, box), labels in
    alphabetical order.

    Labels of whole studies are passed over; boxes without area are kept.

    Raises:
        ConfigError: if the table does not exist, lacks a column, holds no T1w file, or a number is
            not a whole one.
    """
    boxes: dict[str, list[tuple[int, str, Box]]] = defaultdict(list)
    rows = [row for row in read_table(Path(path), COLUMNS) if row["file"].startswith(PREFIX)]
    if not rows:
        raise ConfigError(
            f"{Path(path).name} annotates no file {PREFIX}*: pass fastMRI+'s brain.csv"
        )
    for row in rows:
        if row["study_level"] == "Yes":
            continue
        try:
            index, x, y, width, height = (
                _whole(row[name]) for name in ("slice", "x", "y", "width", "height")
            )
        except ValueError:
            raise ConfigError(
                f"{Path(path).name}: a box of {row['file']} is not made of whole numbers"
            ) from None
        boxes[row["file"]].append((index, row["label"].strip(), (x, y, width, height)))
    return {file: sorted(found, key=lambda box: box[:2]) for file, found in boxes.items()}


def _whole(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError
    return int(number)


def find_sources(
    source: str | os.PathLike, entries: Sequence[Entry]
) -> tuple[str, dict[str, Path]]:
    """Find the files of the split below a folder: "hdf5" or "dicom", and file -> path of it or of
    its slice.

    Raises:
        ConfigError: if the folder does not exist, or holds a file twice.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise ConfigError(f"the folder {folder} does not exist")
    for kind, suffix in (("hdf5", ".h5"), ("dicom", ".dcm")):
        wanted = {
            entry.file + (f"_{entry.slice:03d}" if kind == "dicom" else ""): entry.file
            for entry in entries
        }
        paths = sorted(path for path in folder.rglob(f"{PREFIX}*{suffix}") if path.stem in wanted)
        name, times = Counter(path.name for path in paths).most_common(1)[0] if paths else ("", 0)
        if times > 1:
            raise ConfigError(
                f"{folder} holds {name} {times} times: name the folder that holds the right one"
            )
        if paths:
            return kind, {wanted[path.stem]: path for path in paths}
    return "hdf5", {}


def _describe_missing(missing: Sequence[str], listed_files: int, source: Path) -> str:
    return (
        f"{len(missing)} of the {listed_files} files of the paper's split are not in {source} (as .h5, or their slices "
        f"as .dcm): {name_some(missing)}. With --allow-missing the cohort is made of those that are there"
    )


def _read_hdf5(path: Path, index: int) -> Picture:
    """Slice `index` of a file of fastMRI, turned up/down as fastMRI+ did for annotation: it is
    stored upside down."""
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(
            "fastMRI's files need h5py: pip install pathology-screen[fastmri]"
        ) from error
    with parsing(path.name), h5py.File(path) as file:
        if "reconstruction_rss" not in file:
            raise ConfigError(
                f"{path.name} holds no reconstruction_rss (as those of fastMRI's test set)"
            )
        images = file["reconstruction_rss"]
        if images.ndim != 3:
            raise InputError("not_3d", f"{path.name}: reconstruction_rss has {images.ndim} axes")
        if not 0 <= index < len(images):
            raise InputError("slice_out_of_range", f"{path.name}: slice {index} of {len(images)}")
        upright = np.asarray(images[index], np.float32)[::-1]
        header = file["ismrmrd_header"][()] if "ismrmrd_header" in file else None
        examination = file.attrs.get("patient_id")
        millimetres = stated_size(header, *upright.shape) if header else None
    return Picture(upright.T.copy(), millimetres, None if examination is None else str(examination))


def stated_size(header: str | bytes, rows: int, columns: int) -> tuple[float, float, float] | None:
    """Size of a pixel along x and y of the picture, and slice thickness in mm, from an ISMRMRD
    header.

    The picture is cut from the image of the encoded space, whose x axis (readout) runs along y of
    the picture; the reconstructed space of the header may be on an interpolated grid.

    Args:
        header: XML.
        rows, columns: of the array.

    Returns:
        None where the header does not state them, or the array is larger than the encoded space.
    """
    root = ElementTree.fromstring(header)

    def number(name: str) -> float:
        return float(
            root.findtext(
                "{*}encoding/" + "/".join("{*}" + part for part in name.split("/")), "nan"
            )
        )

    encoded_rows, encoded_columns = (
        number("encodedSpace/matrixSize/x"),
        number("encodedSpace/matrixSize/y"),
    )
    size = (
        number("encodedSpace/fieldOfView_mm/y") / encoded_columns,
        number("encodedSpace/fieldOfView_mm/x") / encoded_rows,
        number("reconSpace/fieldOfView_mm/z"),
    )
    fits = rows <= encoded_rows and columns <= encoded_columns
    return size if fits and all(np.isfinite(value) and value > 0 for value in size) else None


def _read_dicom(path: Path, index: int) -> Picture:
    """A slice as fastMRI+'s script writes it: the right way up, without position, so that
    `read_scan` refuses it."""
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise ConfigError("DICOM needs pydicom: pip install pathology-screen[dicom]") from error
    with parsing(path.name):
        dataset = dcmread(path)
        pixels = dataset.pixel_array.astype(np.float32).T.copy()
        spacing, thickness = dataset.get("PixelSpacing"), dataset.get("SliceThickness")
        known = spacing and thickness
        millimetres = (float(spacing[1]), float(spacing[0]), float(thickness)) if known else None
    return Picture(pixels, millimetres, None)


def _scan(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine: x to the patient's left, y to posterior, the middle of the slice at the
    origin."""
    x, y, z = picture.millimetres or NOMINAL_MM
    affine = np.diag([-x, -y, z, 1.0])
    affine[:2, 3] = -affine[:2, :2] @ (np.array(picture.pixels.shape) - 1) / 2
    return picture.pixels, affine


def _item(
    entry: Entry,
    image: Path,
    annotated: Sequence[tuple[int, str, Box]],
    shape: tuple[int, ...],
    notes: dict[str, list[str]],
) -> dict[str, Any]:
    """Item of the datalist; what is odd about its annotations goes into the notes."""
    item = {
        "image": image.name,
        "subject": entry.file,
        "axial_slice": True,
        "source_slice": entry.slice,
        "group": entry.group,
    }
    if entry.section != "test":
        return item
    found: dict[str, list] = {"boxes": [], "other_boxes": []}
    for index, label, (x, y, width, height) in annotated:
        if width <= 0 or height <= 0:
            notes["annotated box without area, left out"].append(f"{entry.file} slice {index}")
        elif index == entry.slice:
            if min(x, y) < 0 or x + width > shape[0] or y + height > shape[1]:
                box, size = f"[{x}, {y}, {width}, {height}]", f"{shape[0]} x {shape[1]} pixels"
                raise ConfigError(f"the box {box} of {entry.file} lies outside its slice of {size}")
            counts = entry.boxes and label in FINDINGS and label != entry.left_out
            name = FINDINGS[label] if counts else label.lower()
            place = {"label": name, "slice": 0, "box": [x, y, width, height]}
            found["boxes" if counts else "other_boxes"].append(place)
    if entry.boxes and not found["boxes"]:
        notes["no counted box on the slice, left out of the local pathologies"].append(entry.file)
    elif entry.boxes != len(found["boxes"]):
        notes["another number of boxes than in the paper's lists"].append(entry.file)
    names = [entry.pathology, *sorted({box["label"] for box in found["boxes"]})]
    return {**item, "pathology": ", ".join(filter(None, names)) or "healthy", **found}
