"""Faithfully built DICOM series for the tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from pydicom.uid import MRImageStorage as MR_IMAGE

PATIENT_NAME = "CANARY^PATIENT"
AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def head_volume(
    slices: int = 8, rows: int = 20, columns: int = 16, dtype: str = "uint16"
) -> np.ndarray:
    """(slices, rows, columns) of distinct values, so that any flip or swap shows, and of
    background: the first and last row, and the second column, so that every slice along any axis
    shows it."""
    generator = np.random.default_rng(slices * rows * columns)
    volume = generator.integers(1, 1000, (slices, rows, columns)).astype(dtype)
    volume[:, [0, -1]] = volume[:, :, 1] = 0
    return volume


def normal(orientation: Sequence[float]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def dicom_datasets(
    volume: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (2.0, 1.5, 1.25),
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-30.0, -40.0, -50.0),
    series_uid: str | None = None,
    transfer_syntax: UID = ExplicitVRLittleEndian,
    **attributes: object,
) -> list[FileDataset]:
    """A single-frame MR series of `volume` (slices, rows, columns); spacing (between slices, rows,
    columns) in mm.

    Slice k lies k steps along the normal from `origin`. Further attributes are set in every slice.
    """
    series_uid, study_uid, space_uid = series_uid or generate_uid(), generate_uid(), generate_uid()
    datasets = []
    for k, pixels in enumerate(volume):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MR_IMAGE, generate_uid()
        stored = (
            transfer_syntax if transfer_syntax in NATIVE else ExplicitVRLittleEndian
        )  # until it is compressed
        meta.TransferSyntaxUID = stored
        dataset = FileDataset(
            "", {}, b"\0" * 128, meta, stored.is_implicit_VR, stored.is_little_endian
        )
        dataset.SOPClassUID, dataset.SOPInstanceUID = MR_IMAGE, meta.MediaStorageSOPInstanceUID
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = (
            PATIENT_NAME,
            "CANARY-ID",
            "19010203",
        )
        dataset.PatientSex, dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "O", "", "", ""
        dataset.AccessionNumber, dataset.ReferringPhysicianName = "CANARY-ACC", "CANARY^REFERRER"
        dataset.SeriesDescription = "T1 CANARY"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
        dataset.FrameOfReferenceUID = space_uid
        dataset.Modality, dataset.Manufacturer, dataset.ImageType = (
            "MR",
            "ACME",
            ["ORIGINAL", "PRIMARY", "M"],
        )
        dataset.SeriesNumber, dataset.InstanceNumber, dataset.PositionReferenceIndicator = (
            1,
            k + 1,
            "",
        )
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "GR", "SP", ""
        dataset.MRAcquisitionType, dataset.EchoTrainLength = "3D", 1
        dataset.EchoTime, dataset.RepetitionTime, dataset.MagneticFieldStrength = 4.6, 9.8, 1.5
        dataset.ImageOrientationPatient = [float(cosine) for cosine in orientation]
        position = np.asarray(origin) + k * spacing[0] * normal(orientation)
        dataset.ImagePositionPatient = [round(float(x), 8) for x in position]
        dataset.PixelSpacing, dataset.SliceThickness = list(spacing[1:]), spacing[0]
        dataset.SpacingBetweenSlices = 99.0  # wrong on purpose: readers must not believe it
        dataset.PatientPosition, dataset.Laterality = "HFS", ""
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
        dataset.HighBit, dataset.PixelRepresentation = (
            dataset.BitsStored - 1,
            int(pixels.dtype.kind == "i"),
        )
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.PixelData = pixels.astype(
            pixels.dtype.newbyteorder("<" if stored.is_little_endian else ">")
        ).tobytes()
        dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
        if transfer_syntax not in NATIVE:
            dataset.compress(transfer_syntax, pixels, generate_instance_uid=False)
        datasets.append(dataset)
    return datasets


def halved(path: Path) -> nib.Nifti1Image:
    """A scan in RAS orientation, with every second row and column."""
    return nib.as_closest_canonical(nib.load(path)).slicer[::2, ::2]


def series_of(
    image: nib.Nifti1Image,
    voxels: Callable[[np.ndarray], np.ndarray] = lambda stored: stored.astype("uint16"),
    **attributes: object,
) -> list[FileDataset]:
    """A series of the voxels of an image in RAS orientation, at their place, in the directions that
    are usual in DICOM.

    Args:
        image: (I, J, K).
        voxels: of (slices, rows, columns), to store other values.
        attributes: see `dicom_datasets`.
    """
    stored = np.flip(np.asarray(image.dataobj), axis=(0, 1)).transpose(2, 1, 0)
    columns, rows, slices = nib.affines.voxel_sizes(image.affine)
    x, y, z = nib.affines.apply_affine(image.affine, (image.shape[0] - 1, image.shape[1] - 1, 0))
    placed = {"origin": (-x, -y, z), **attributes}
    return dicom_datasets(voxels(stored), spacing=(slices, rows, columns), **placed)


def save(
    datasets: Sequence[Dataset], folder: Path, name: Callable[[int], str] = "IM{:04d}".format
) -> Path:
    """Write one file a data set into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, dataset in enumerate(datasets):
        dataset.save_as(folder / name(k), enforce_file_format=True)
    return folder


def ras_affine(
    spacing: Sequence[float] = (2.0, 1.5, 1.25),
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-30.0, -40.0, -50.0),
) -> np.ndarray:
    """Affine of the volume of `dicom_datasets` with axes (column, row, slice), by the definition of
    its attributes."""
    affine = np.eye(4)
    affine[:3, 0] = np.asarray(orientation[:3]) * spacing[2]
    affine[:3, 1] = np.asarray(orientation[3:]) * spacing[1]
    affine[:3, 2] = normal(orientation) * spacing[0]
    affine[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
