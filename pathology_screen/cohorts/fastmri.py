"""The cohort of the paper (section 4 and Appendix B): fastMRI+, one T1w slice of each listed file
with its boxes, alone or in one datalist with IXI.

Of fastMRI's files (Zbontar et al., arXiv:1811.08839) those of the paper's split are taken, as
`data_lists/fastmri.csv` lists them; the boxes are those of fastMRI+ (Zhao et al.,
arXiv:2109.03812), which the user brings as `brain.csv`.
"""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from tqdm import tqdm

from pathology_screen.cohorts.datalist import FILE_KEYS, load_sections, read_notes, write_datalist
from pathology_screen.cohorts.preparation import (
    begin,
    listed,
    name_some,
    path_from,
    read_table,
    save_scan,
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
"""Pixel along x and y, and thickness, where a file states none: the brain protocol's usual ones."""
DESCRIPTION = (
    "fastMRI brain T1w, one axial slice a file, with fastMRI+ boxes: the split of Bercea et al., "
    "MIDL 2023. Arrays run from left to right and from top to bottom of the picture. fastMRI "
    "states neither position nor laterality: the slice is centred at the origin, and that its left "
    "is the patient's right is a convention."
)
PAPER_DESCRIPTION = (
    "Bercea et al., MIDL 2023: training on healthy fastMRI+ and IXI subjects, validation and test "
    "on fastMRI+. No section for calibration: the paper fits its threshold on the test normals."
)
COLUMNS = ("file", "slice", "study_level", "x", "y", "width", "height", "label")
Row = dict[str, Any]
"""Of `data_lists/fastmri.csv`, `slice` and `boxes` (those that the paper counts) as numbers."""
Millimetres = tuple[float, float, float] | None
"""Of a pixel along x and y of the picture, and its thickness, if they are stated."""
Box = tuple[int, str, list[int]]
"""Slice, label and [x, y, width, height] of an annotation: columns x to x + width - 1 and rows y to
y + height - 1 of the upright picture."""


def prepare_fastmri(
    source: str | os.PathLike,
    annotations: str | os.PathLike,
    output: str | os.PathLike,
    *,
    slices: Literal["table"] | int | str | os.PathLike = "table",
    allow_missing: bool = False,
) -> Path:
    """Write slices as NIfTI and a datalist of training, validation and test; return its path.

    Every image is one axial slice, (W, H, 1) float32, with the intensities of the source. Items
    hold `subject` (the name of the file), `axial_slice`, `source_slice` and `group`; test items
    also `pathology` ("healthy", or names joined by commas), `boxes` (those that the paper counts,
    by the names in `FINDINGS`) and `other_boxes` (all others that are annotated on the slice:
    neither counted nor healthy), both in the form of `phantom.find_boxes`.

    The source holds, at any depth, fastMRI's HDF5 files; or, where it holds none, what fastMRI+'s
    own script made of them, `<file>_<slice>.dcm`; `annotations` is `brain.csv` of fastMRI+. The
    slices are those that agree with the paper's lists, 3 where any may ("table"); of one index; or
    of the table but for the files in a CSV of file and slice. With `allow_missing` the notes name
    the files that are missing.

    Raises:
        ConfigError: if files are missing, a table is not valid, a box lies outside its slice, or
            the folder holds a cohort that was made with other slices or from another kind of
            source.
        InputError: if a file cannot be read faithfully.
    """
    rows, overruled = _choose_slices(slices)
    annotated = _read_annotations(Path(annotations))
    kind, sources = _find_sources(Path(source), rows)
    missing = [row["file"] for row in rows if row["file"] not in sources]
    if not sources or (missing and not allow_missing):
        raise ConfigError(
            f"{len(missing)} of the {len(rows)} files of the paper's split are not in {source} (as "
            f".h5, or their slices as .dcm): {name_some(missing)}. With --allow-missing the cohort "
            "is made of those that are there"
        )
    read, package, extra = READERS[kind]
    if find_spec(package) is None:
        raise ConfigError(f"these files need {package}: pip install pathology-screen[{extra}]")
    folder = begin(output, {"cohort": "fastmri", "source": kind, "slices": overruled})

    notes: dict[str, list[str]] = defaultdict(list, {"not found": missing})
    sections: dict[str, list[Row]] = {"training": [], "validation": [], "test": []}
    examinations: dict[str, list[Row]] = defaultdict(list)
    there = [row for row in rows if row["file"] in sources]
    for row in tqdm(there, "Preparing fastMRI+", unit="file"):
        name = row["file"]
        pixels, millimetres, examination = read(sources[name], row["slice"])
        x, y, z = millimetres or NOMINAL_MM
        affine = np.diag([-x, -y, z, 1.0])  # to the patient's left and to posterior
        affine[:2, 3] = -affine[:2, :2] @ (np.array(pixels.shape) - 1) / 2
        path = folder / f"{name}_slice-{row['slice']:02d}.nii.gz"
        save_scan(pixels, affine, path, "aligned")
        if not millimetres:
            notes[f"pixel size not stated, taken as {NOMINAL_MM[0]} mm"].append(name)
        if examination:
            examinations[examination].append(row)
        item = {"image": path.name, "subject": name, "axial_slice": True}
        item |= {"source_slice": row["slice"], "group": row["group"]}
        if row["section"] == "test":
            item |= _findings(row, annotated.get(name, []), pixels.shape, notes)
        if row["group"] != "local" or item["boxes"]:
            sections[row["section"]].append(item)
    for members in examinations.values():
        if len({row["section"] for row in members}) > 1:
            names = [row["file"] for row in members]
            notes["examination that stands in two sections of the paper's split"] += names
    return write_datalist(folder, sections, DESCRIPTION, notes=notes)


def _choose_slices(slices: str | int | os.PathLike) -> tuple[list[Row], Any]:
    """The split with its slices, and how they were chosen (JSON)."""
    rows: list[Row] = listed("fastmri.csv")
    chosen: dict[str, int] = {}
    if isinstance(slices, int):
        chosen = dict.fromkeys((row["file"] for row in rows), slices)
    elif slices != "table":
        table = Path(slices)
        for row in read_table(table, ("file", "slice")):
            if not row["slice"].isdecimal():
                wrong = f"the slice of {row['file']} is not a number: {row['slice']!r}"
                raise ConfigError(f"{table.name}: {wrong}")
            chosen[row["file"]] = int(row["slice"])
        unknown = sorted(chosen.keys() - {row["file"] for row in rows})
        if unknown:
            raise ConfigError(f"{table.name} names {unknown[0]}, which is not in the paper's split")
    for row in rows:
        row |= {"boxes": int(row["boxes"]), "slice": chosen.get(row["file"], int(row["slice"]))}
    return rows, slices if isinstance(slices, int) or slices == "table" else chosen


def _read_annotations(path: Path) -> dict[str, list[Box]]:
    """File -> annotations by slice and label; those of whole studies are passed over, boxes without
    area are kept."""
    boxes: dict[str, list[Box]] = defaultdict(list)
    rows = [row for row in read_table(path, COLUMNS) if row["file"].startswith(PREFIX)]
    if not rows:
        raise ConfigError(f"{path.name} annotates no file {PREFIX}*: pass fastMRI+'s brain.csv")
    for row in (row for row in rows if row["study_level"] != "Yes"):
        try:
            numbers = [float(row[name]) for name in ("slice", "x", "y", "width", "height")]
        except ValueError:
            numbers = [np.nan]
        if not all(number.is_integer() for number in numbers):
            raise ConfigError(f"{path.name}: a box of {row['file']} is not made of whole numbers")
        index, *box = map(int, numbers)
        boxes[row["file"]].append((index, row["label"].strip(), box))
    return {file: sorted(found, key=lambda box: box[:2]) for file, found in boxes.items()}


def _find_sources(folder: Path, rows: Sequence[Row]) -> tuple[str, dict[str, Path]]:
    """ "hdf5" or "dicom", and file of the split -> path of it or of its slice."""
    if not folder.is_dir():
        raise ConfigError(f"the folder {folder} does not exist")
    for kind, suffix, index in (("hdf5", ".h5", ""), ("dicom", ".dcm", "_{:03d}")):
        wanted = {row["file"] + index.format(row["slice"]) + suffix: row["file"] for row in rows}
        found: dict[str, Path] = {}
        for path in folder.rglob(f"{PREFIX}*{suffix}"):
            if path.name in wanted and found.setdefault(wanted[path.name], path) is not path:
                raise ConfigError(f"{folder} holds {path.name} twice: keep the right one")
        if found:
            return kind, found
    return "hdf5", {}


def _read_hdf5(path: Path, index: int) -> tuple[np.ndarray, Millimetres, str | None]:
    """Slice `index` of a file of fastMRI, turned upright as fastMRI+ did for annotation: float32
    (W, H), column from the left, row from the top, anterior up; and the person's examination."""
    import h5py

    with parsing(path.name), h5py.File(path) as file:
        if "reconstruction_rss" not in file:
            raise ConfigError(f"{path.name} holds no reconstruction_rss, as fastMRI's test set")
        images = file["reconstruction_rss"]
        if images.ndim != 3:
            raise InputError("not_3d", f"{path.name}: reconstruction_rss has {images.ndim} axes")
        if not 0 <= index < len(images):
            raise InputError("slice_out_of_range", f"{path.name}: slice {index} of {len(images)}")
        pixels = np.asarray(images[index], np.float32)[::-1].T.copy()
        header = file["ismrmrd_header"][()] if "ismrmrd_header" in file else None
        examination = file.attrs.get("patient_id")
        millimetres = _stated_size(header, *pixels.shape) if header else None
    return pixels, millimetres, None if examination is None else str(examination)


def _stated_size(header: bytes, columns: int, rows: int) -> Millimetres:
    """Size from an ISMRMRD header; None where it does not state it, or the picture is larger than
    the encoded space.

    The picture is cut from the image of the encoded space, whose x axis (readout) runs along y of
    the picture; the reconstructed space of the header may be on an interpolated grid.
    """
    root = ElementTree.fromstring(header)

    def number(space: str, what: str, axis: str) -> float:
        names = ("encoding", space, what, axis)
        return float(root.findtext("/".join("{*}" + name for name in names)) or "nan")

    grid = [number("encodedSpace", "matrixSize", axis) for axis in "yx"]
    x, y = (number("encodedSpace", "fieldOfView_mm", axis) / n for axis, n in zip("yx", grid))
    z = number("reconSpace", "fieldOfView_mm", "z")
    fits = columns <= grid[0] and rows <= grid[1]
    return (x, y, z) if fits and all(np.isfinite(mm) and mm > 0 for mm in (x, y, z)) else None


def _read_dicom(path: Path, index: int) -> tuple[np.ndarray, Millimetres, None]:
    """A slice as fastMRI+'s script writes it: upright, without a position; see `_read_hdf5`."""
    from pydicom import dcmread

    with parsing(path.name):
        dataset = dcmread(path)
        pixels = dataset.pixel_array.astype(np.float32).T.copy()
        spacing, thickness = dataset.get("PixelSpacing"), dataset.get("SliceThickness")
        known = spacing and thickness
        millimetres = (float(spacing[1]), float(spacing[0]), float(thickness)) if known else None
    return pixels, millimetres, None


READERS = {"hdf5": (_read_hdf5, "h5py", "fastmri"), "dicom": (_read_dicom, "pydicom", "dicom")}
"""Kind of source -> function that reads it, the package that this needs, and its extra."""


def _findings(
    row: Row, annotated: Sequence[Box], shape: tuple[int, ...], notes: dict[str, list[str]]
) -> dict[str, Any]:
    """What a test item says of its annotations; what is odd about them goes into the notes."""
    file = row["file"]
    counted: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for index, label, box in annotated:
        x, y, width, height = box
        if width <= 0 or height <= 0:
            notes["annotated box without area, left out"].append(f"{file} slice {index}")
        elif index == row["slice"]:
            if min(x, y) < 0 or x + width > shape[0] or y + height > shape[1]:
                size = f"{shape[0]} x {shape[1]} pixels"
                raise ConfigError(f"the box {box} of {file} lies outside its slice of {size}")
            counts = row["boxes"] and label in FINDINGS and label != row["left_out"]
            name = FINDINGS[label] if counts else label.lower()
            (counted if counts else others).append({"label": name, "slice": 0, "box": box})
    if row["boxes"] and not counted:
        notes["no counted box on the slice, left out of the local pathologies"].append(file)
    elif row["boxes"] != len(counted):
        notes["another number of boxes than in the paper's lists"].append(file)
    names = [row["pathology"], *sorted({box["label"] for box in counted})]
    pathology = ", ".join(filter(None, names)) or "healthy"
    return {"pathology": pathology, "boxes": counted, "other_boxes": others}


def prepare_paper(
    fastmri: str | os.PathLike,
    ixi: str | os.PathLike,
    output: str | os.PathLike,
    *,
    allow_missing: bool = False,
) -> Path:
    """Write the datalist of both cohorts, given as the folders or datalists that `prepare_fastmri`
    and `prepare_ixi` made; return its path.

    The sections are those of fastMRI+, with all IXI subjects of the paper (`data_lists/ixi.csv`) in
    training, whatever their section in the IXI datalist; with `allow_missing`, those that are
    there, and the others stand in the notes. The paths lead to both folders.

    Raises:
        ConfigError: see `load_datalist`; or if a datalist is not of its cohort, IXI subjects are
            missing, or theirs are extracted brains.
    """
    of_fastmri, of_ixi = (
        Path(path) / "datalist.json" if Path(path).is_dir() else Path(path)
        for path in (fastmri, ixi)
    )
    there = load_sections(of_fastmri)
    home = {row["file"]: row["section"] for row in listed("fastmri.csv")}
    subjects = ((section, item["subject"]) for section in there for item in there[section])
    wrong = [subject for section, subject in subjects if home.get(subject) != section]
    if wrong or there.keys() != set(home.values()):
        named = f": {wrong[0]} does not belong there" if wrong else ""
        maker = "`pathology-screen prepare fastmri`"
        raise ConfigError(f"{of_fastmri} is not the datalist that {maker} makes{named}")
    options = of_ixi.with_name("preparation.json")
    made_with = json.loads(options.read_text("utf-8")) if options.is_file() else {}
    if made_with.get("domain") == "brain_extracted":
        brains = f"{of_ixi} holds extracted brains, but the paper trains on whole heads"
        raise ConfigError(f"{brains}: prepare IXI again")
    people: dict[str, Row] = {}  # subject -> its one item
    for item in (item for section in load_sections(of_ixi).values() for item in section):
        if people.setdefault(item["subject"], item) is not item:
            several = f"{of_ixi} holds several images of {item['subject']}"
            raise ConfigError(f"{several}; the paper takes one of each")
    wanted = {row["subject"] for row in listed("ixi.csv")}
    missing, further = sorted(wanted - people.keys()), sorted(people.keys() - wanted)
    if wanted == set(missing) or (missing and not allow_missing):
        raise ConfigError(
            f"{of_ixi} lacks {len(missing)} of the {len(wanted)} subjects of the paper: "
            f"{name_some(missing)}. With --allow-missing the cohort is made of those that are there"
        )
    sections = {section: there[section] for section in ("training", "validation", "test")}
    sections["training"] += [people[subject] for subject in sorted(wanted & people.keys())]
    folder = begin(output, {"cohort": "paper"})
    for item in (item for items in sections.values() for item in items):
        item |= {key: path_from(folder, item[key]) for key in FILE_KEYS if key in item}
    notes = {
        **read_notes(of_fastmri),
        **read_notes(of_ixi),
        "IXI subject not found": missing,
        "IXI subject that is not in the paper's list, left out": further,
    }
    return write_datalist(folder, sections, PAPER_DESCRIPTION, notes=notes)
