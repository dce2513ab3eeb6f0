"""The fastMRI+ cohort of the paper: one T1w slice of each listed file, with its boxes.

Of fastMRI's files (Zbontar et al., arXiv:1811.08839) those of the paper's split are taken, as
`data_lists/fastmri.csv` lists them; the boxes are those of fastMRI+ (Zhao et al.,
arXiv:2109.03812), which the user brings as `brain.csv`.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np
from tqdm import tqdm

from pathology_screen.cohorts.datalist import write_datalist
from pathology_screen.cohorts.preparation import begin, listed, name_some, read_table, save_scan
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
COLUMNS = ("file", "slice", "study_level", "x", "y", "width", "height", "label")
Row = dict[str, Any]
"""Of `data_lists/fastmri.csv`, `slice` and `boxes` (those that the paper counts) as numbers."""


class StoredSlice(NamedTuple):
    """One slice as its source holds it."""

    pixels: np.ndarray  # float32, (W, H): column from the left, row from the top, anterior up
    millimetres: tuple[float, float, float] | None  # of a pixel along both, thickness; if stated
    examination: str | None  # id of the person's examination, if stated


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
    neither counted nor healthy), both in the form of `phantom.find_boxes`. There is no section for
    calibration: the paper fits its threshold on the test normals.

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
    folder = begin(output, {"cohort": "fastmri", "source": kind, "slices": overruled})

    notes: dict[str, list[str]] = defaultdict(list, {"not found": missing})
    sections: dict[str, list[Row]] = {"training": [], "validation": [], "test": []}
    examinations: dict[str, list[Row]] = defaultdict(list)
    there = [row for row in rows if row["file"] in sources]
    for row in tqdm(there, "Preparing fastMRI+", unit="file"):
        name, read = row["file"], _read_hdf5 if kind == "hdf5" else _read_dicom
        picture = read(sources[name], row["slice"])
        path = folder / f"{name}_slice-{row['slice']:02d}.nii.gz"
        save_scan(path, partial(_scan, picture), space="aligned")
        if not picture.millimetres:
            notes[f"pixel size not stated, taken as {NOMINAL_MM[0]} mm"].append(name)
        if picture.examination:
            examinations[picture.examination].append(row)
        item = {"image": path.name, "subject": name, "axial_slice": True}
        item |= {"source_slice": row["slice"], "group": row["group"]}
        if row["section"] == "test":
            item |= _findings(row, annotated.get(name, []), picture.pixels.shape, notes)
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


def _read_annotations(path: Path) -> dict[str, list[tuple[int, str, list[int]]]]:
    """File -> (slice, label, [x, y, width, height]) of fastMRI+'s table, in this order.

    The box holds columns x to x + width - 1 and rows y to y + height - 1 of the upright picture.
    Labels of whole studies are passed over; boxes without area are kept.
    """
    boxes: dict[str, list[tuple[int, str, list[int]]]] = defaultdict(list)
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
    for kind, ending in (("hdf5", ".h5"), ("dicom", "_{:03d}.dcm")):
        wanted = {row["file"] + ending.format(row["slice"]): row["file"] for row in rows}
        suffix = ending.rpartition(".")[2]
        found: dict[str, Path] = {}
        for path in folder.rglob(f"{PREFIX}*.{suffix}"):
            if path.name in wanted and found.setdefault(wanted[path.name], path) is not path:
                raise ConfigError(f"{folder} holds {path.name} twice: keep the right one")
        if found:
            return kind, found
    return "hdf5", {}


def _read_hdf5(path: Path, index: int) -> StoredSlice:
    """Slice `index` of a file of fastMRI, turned upright as fastMRI+ did for annotation."""
    try:
        import h5py
    except ImportError as error:
        text = "fastMRI's files need h5py: pip install pathology-screen[fastmri]"
        raise ConfigError(text) from error
    with parsing(path.name), h5py.File(path) as file:
        if "reconstruction_rss" not in file:
            raise ConfigError(f"{path.name} holds no reconstruction_rss, as fastMRI's test set")
        images = file["reconstruction_rss"]
        if images.ndim != 3:
            raise InputError("not_3d", f"{path.name}: reconstruction_rss has {images.ndim} axes")
        if not 0 <= index < len(images):
            raise InputError("slice_out_of_range", f"{path.name}: slice {index} of {len(images)}")
        upright = np.asarray(images[index], np.float32)[::-1]
        header = file["ismrmrd_header"][()] if "ismrmrd_header" in file else None
        examination = file.attrs.get("patient_id")
        millimetres = _stated_size(header, *upright.shape) if header else None
    person = None if examination is None else str(examination)
    return StoredSlice(upright.T.copy(), millimetres, person)


def _stated_size(header: bytes, rows: int, columns: int) -> tuple[float, float, float] | None:
    """Size of a pixel along x and y of the picture, and slice thickness in mm, from an ISMRMRD
    header; None where it does not state them, or the picture is larger than the encoded space.

    The picture is cut from the image of the encoded space, whose x axis (readout) runs along y of
    the picture; the reconstructed space of the header may be on an interpolated grid.
    """
    root = ElementTree.fromstring(header)

    def number(space: str, what: str) -> float:
        names = ("encoding", space, *what.split())
        return float(root.findtext("/".join("{*}" + name for name in names)) or "nan")

    encoded_columns = number("encodedSpace", "matrixSize y")
    encoded_rows = number("encodedSpace", "matrixSize x")
    x = number("encodedSpace", "fieldOfView_mm y") / encoded_columns
    y = number("encodedSpace", "fieldOfView_mm x") / encoded_rows
    z = number("reconSpace", "fieldOfView_mm z")
    fits = columns <= encoded_columns and rows <= encoded_rows
    return (x, y, z) if fits and all(np.isfinite(mm) and mm > 0 for mm in (x, y, z)) else None


def _read_dicom(path: Path, index: int) -> StoredSlice:
    """A slice as fastMRI+'s script writes it: upright, without a position."""
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
    return StoredSlice(pixels, millimetres, None)


def _scan(picture: StoredSlice) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine: x to the patient's left, y to posterior, the middle at the origin."""
    x, y, z = picture.millimetres or NOMINAL_MM
    affine = np.diag([-x, -y, z, 1.0])
    affine[:2, 3] = -affine[:2, :2] @ (np.array(picture.pixels.shape) - 1) / 2
    return picture.pixels, affine


def _findings(
    row: Row,
    annotated: Sequence[tuple[int, str, list[int]]],
    shape: tuple[int, ...],
    notes: dict[str, list[str]],
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
