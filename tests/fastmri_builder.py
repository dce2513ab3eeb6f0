"""Files as fastMRI and fastMRI+ have them, but tiny."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
from scan_builders import dicom_datasets

from pathology_screen.cohorts.fastmri import COLUMNS, prepare_fastmri
from pathology_screen.cohorts.preparation import listed

ROWS, WIDTH, SLICES = 14, 12, 6
HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <encoding>
    <encodedSpace>
      <matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{fov_x}</x><y>{fov_y}</y><z>7.5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{x}</x><y>{x}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>999</x><y>999</y><z>5</z></fieldOfView_mm>
    </reconSpace>
  </encoding>
</ismrmrdHeader>"""
STATED = HEADER.format(x=2 * ROWS, y=WIDTH, fov_x=2 * ROWS * 0.75, fov_y=WIDTH * 0.5)
"""Pixels of 0.5 mm along the rows and 0.75 mm along the columns; a readout oversampled twofold."""


def pictures(seed: int = 0) -> np.ndarray:
    """(SLICES, ROWS, WIDTH) float32 of the magnitude that fastMRI has, upright: anterior in the
    first row, and black at both sides."""
    images = np.random.default_rng(seed).uniform(1e-5, 1e-3, (SLICES, ROWS, WIDTH))
    images[..., [0, -1]] = 0
    return images.astype(np.float32)


def write_hdf5(
    path: Path, upright: np.ndarray, header: str | None = STATED, patient: str | None = None
) -> Path:
    """Write a file of fastMRI's training set, which holds the pictures upside down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["reconstruction_rss"] = upright[:, ::-1]
        file["kspace"] = np.zeros((len(upright), 2, 2 * ROWS, WIDTH), np.complex64)
        file.attrs["acquisition"] = "AXT1"
        if header is not None:
            file["ismrmrd_header"] = header
        if patient is not None:
            file.attrs["patient_id"] = patient
    return path


def write_dicoms(folder: Path, name: str, upright: np.ndarray) -> None:
    """Write what fastMRI+'s script makes of a file: 12 bits, no position, one object a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    scaled = (1024 / np.percentile(upright, 99.9) * upright).clip(0, 1024).astype(np.int16)
    told = {"PatientName": name, "PatientID": name, "BitsStored": 12, "HighBit": 11}
    for k, dataset in enumerate(dicom_datasets(scaled, spacing=(5, 0.75, 0.5), **told)):
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
            delattr(dataset, keyword)
        dataset.save_as(folder / f"{name}_{k:03d}.dcm")


def write_annotations(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """Write a table like brain.csv; rows are (file, slice, x, y, width, height, label), or (file,
    label) of a study."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, *rest in rows:
            box = [rest[0], "No", *rest[1:]] if len(rest) > 1 else [0, "Yes", "", "", "", "", *rest]
            writer.writerow([name, *box])
    return path


def write_whole_split(
    folder: Path, upright: np.ndarray | None = None, annotations: Path | None = None
) -> Path:
    """Prepare all files of the paper's split, each the same picture, by default with as many boxes
    as the paper counts; return the datalist in `folder/out`."""
    rows = listed("fastmri.csv")
    original = write_hdf5(folder / "picture.h5", pictures() if upright is None else upright)
    (folder / "source").mkdir()
    boxes = []
    for row in rows:
        (folder / f"source/{row['file']}.h5").symlink_to(original)
        boxes += [(row["file"], row["slice"], 1, 1, 3, 3, "Mass")] * int(row["boxes"])
    table = annotations or write_annotations(folder / "brain.csv", boxes)
    return prepare_fastmri(folder / "source", table, folder / "out")
