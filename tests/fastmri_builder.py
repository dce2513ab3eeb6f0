"""Files as fastMRI and fastMRI+ have them, but tiny."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from pathology_screen.cohorts.fastmri import COLUMNS

ROWS, WIDTH, SLICES = 14, 12, 6
HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <studyInformation><studyTime>00:00:00</studyTime></studyInformation>
  <measurementInformation>
    <measurementID>0</measurementID><patientPosition>HFS</patientPosition><protocolName>AX T1</protocolName>
  </measurementInformation>
  <acquisitionSystemInformation>
    <systemVendor>SIEMENS</systemVendor><systemModel>Aera</systemModel>
    <systemFieldStrength_T>1.494</systemFieldStrength_T><receiverChannels>2</receiverChannels>
  </acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>63655779</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{fov_x}</x><y>{fov_y}</y><z>7.5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{x}</x><y>{x}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>999</x><y>999</y><z>5</z></fieldOfView_mm>
    </reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1><minimum>0</minimum><maximum>11</maximum><center>6</center></kspace_encoding_step_1>
    </encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
  <sequenceParameters><TR>250</TR><TE>2.64</TE><flipAngle_deg>70</flipAngle_deg></sequenceParameters>
</ismrmrdHeader>"""
STATED = HEADER.format(x=2 * ROWS, y=WIDTH, fov_x=2 * ROWS * 0.75, fov_y=WIDTH * 0.5)
"""Pixels of 0.5 mm along the rows and 0.75 mm along the columns of the picture; twofold oversampling of the readout."""


def pictures(seed: int = 0) -> np.ndarray:
    """(SLICES, ROWS, WIDTH) float32 of the magnitude that fastMRI has, upright: anterior in the
    first row, and black at both sides."""
    images = (
        np.random.default_rng(seed).uniform(1e-5, 1e-3, (SLICES, ROWS, WIDTH)).astype(np.float32)
    )
    images[..., [0, -1]] = 0
    return images


def write_hdf5(
    path: Path, upright: np.ndarray, header: str | None = STATED, patient: str | None = None
) -> Path:
    """Write a file of fastMRI's training or validation set, which holds the pictures upside
    down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        stored = upright[:, ::-1]
        file["reconstruction_rss"] = stored
        file["kspace"] = np.zeros((len(stored), 2, 2 * ROWS, WIDTH), np.complex64)
        if header is not None:
            file["ismrmrd_header"] = header
        file.attrs.update(
            acquisition="AXT1", max=float(stored.max()), norm=float(np.linalg.norm(stored))
        )
        if patient is not None:
            file.attrs["patient_id"] = patient
    return path


def write_dicoms(folder: Path, name: str, upright: np.ndarray) -> None:
    """Write what fastMRI+'s script makes of a file: 12 bits, no position, one object a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    for k, pixels in enumerate(
        (1024 / np.percentile(upright, 99.9) * upright).clip(0, 1024).astype(np.int16)
    ):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.Modality, dataset.PatientName, dataset.PatientID = "MR", name, name
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.InstanceNumber = (
            study,
            series,
            k + 1,
        )
        dataset.SliceThickness, dataset.SpacingBetweenSlices, dataset.PixelSpacing = (
            5,
            5,
            [0.75, 0.5],
        )
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
            16,
            12,
            11,
            1,
        )
        dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.save_as(folder / f"{name}_{k:03d}.dcm", enforce_file_format=True)


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
