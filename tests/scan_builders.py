"""Faithfully built DICOM series for the tests."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import highdicom
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

AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
TILTED = (0.9781476007, 0.0, -0.2079116908, 0.0432273, 0.9781476007, 0.2033683)
"""12 degrees about two axes."""
SPACING, ORIGIN = (2.0, 1.5, 1.25), (-30.0, -40.0, -50.0)
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def head_volume(slices: int = 8, rows: int = 20, columns: int = 16) -> np.ndarray:
    """(slices, rows, columns) of distinct values, uint16, so that any flip or swap shows, and of
    background: the first and last row, and the second column, so that every slice along any axis
    shows it."""
    generator = np.random.default_rng(slices * rows * columns)
    volume = generator.integers(1, 1000, (slices, rows, columns)).astype("uint16")
    volume[:, [0, -1]] = volume[:, :, 1] = 0
    return volume


def normal(orientation: Sequence[float]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def dicom_datasets(
    volume: np.ndarray,
    *,
    spacing: tuple[float, float, float] = SPACING,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = ORIGIN,
    series_uid: str | None = None,
    transfer_syntax: UID = ExplicitVRLittleEndian,
    **attributes: object,
) -> list[FileDataset]:
    """A single-frame MR series of `volume` (slices, rows, columns); spacing (between slices, rows,
    columns) in mm.

    Slice k lies k steps along the normal from `origin`. Further attributes are set in every slice.
    """
    bits = 8 * volume.dtype.itemsize
    same = {
        **{"SOPClassUID": MR_IMAGE, "Modality": "MR", "Manufacturer": "ACME"},
        **{"PatientName": "CANARY^PATIENT", "PatientID": "CANARY-ID", "PatientSex": "O"},
        **{"PatientBirthDate": "19010203", "StudyDate": "", "StudyTime": "", "StudyID": ""},
        **{"AccessionNumber": "CANARY-ACC", "ReferringPhysicianName": "CANARY^REFERRER"},
        **{"SeriesDescription": "T1 CANARY", "SeriesNumber": 1, "PatientPosition": "HFS"},
        **{"SeriesInstanceUID": series_uid or generate_uid(), "StudyInstanceUID": generate_uid()},
        **{"FrameOfReferenceUID": generate_uid(), "PositionReferenceIndicator": ""},
        **{"ImageType": ["ORIGINAL", "PRIMARY", "M"], "ScanningSequence": "GR", "Laterality": ""},
        **{"SequenceVariant": "SP", "ScanOptions": "", "MRAcquisitionType": "3D"},
        **{"EchoTrainLength": 1, "EchoTime": 4.6, "RepetitionTime": 9.8},
        **{"MagneticFieldStrength": 1.5, "PhotometricInterpretation": "MONOCHROME2"},
        "ImageOrientationPatient": [float(cosine) for cosine in orientation],
        **{"PixelSpacing": list(spacing[1:]), "SliceThickness": spacing[0], "SamplesPerPixel": 1},
        "SpacingBetweenSlices": 99.0,  # wrong on purpose: readers must not believe it
        **{"Rows": volume.shape[1], "Columns": volume.shape[2], "BitsAllocated": bits},
        **{"BitsStored": bits, "HighBit": bits - 1},
        "PixelRepresentation": int(volume.dtype.kind == "i"),
    }
    # until it is compressed
    stored = transfer_syntax if transfer_syntax in NATIVE else ExplicitVRLittleEndian
    encoding = stored.is_implicit_VR, stored.is_little_endian
    datasets = []
    for k, pixels in enumerate(volume):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MR_IMAGE, generate_uid()
        meta.TransferSyntaxUID = stored
        dataset = FileDataset("", {}, b"\0" * 128, meta, *encoding)
        position = np.asarray(origin) + k * spacing[0] * normal(orientation)
        own = {"SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "InstanceNumber": k + 1}
        own["ImagePositionPatient"] = [round(float(x), 8) for x in position]
        for keyword, value in (same | own | attributes).items():
            setattr(dataset, keyword, value)
        order = "<" if stored.is_little_endian else ">"
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
        if transfer_syntax not in NATIVE:
            dataset.compress(transfer_syntax, pixels, generate_instance_uid=False)
        datasets.append(dataset)
    return datasets


def series_of(image: nib.Nifti1Image, **attributes: object) -> list[FileDataset]:
    """A series of the voxels, uint16, of an image (I, J, K) in RAS orientation, at their place, in
    the directions that are usual in DICOM; attributes as for `dicom_datasets`."""
    stored = np.flip(np.asarray(image.dataobj), axis=(0, 1)).transpose(2, 1, 0).astype("uint16")
    columns, rows, slices = nib.affines.voxel_sizes(image.affine)
    x, y, z = nib.affines.apply_affine(image.affine, (image.shape[0] - 1, image.shape[1] - 1, 0))
    placed = {"origin": (-x, -y, z), **attributes}
    return dicom_datasets(stored, spacing=(slices, rows, columns), **placed)


def save(
    datasets: Sequence[Dataset], folder: Path, name: Callable[[int], str] = "IM{:04d}".format
) -> Path:
    """Write one file a data set into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, dataset in enumerate(datasets):
        dataset.save_as(folder / name(k), enforce_file_format=True)
    return folder


def multiframe(
    datasets: Sequence[Dataset], path: Path, per_frame_orientation: bool = False
) -> Path:
    """Write data sets as one enhanced multi-frame object."""
    made = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        datasets, generate_uid(), 1, generate_uid(), 1
    )
    if per_frame_orientation:
        orientation = made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        del made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        for groups in made.PerFrameFunctionalGroupsSequence:
            groups.PlaneOrientationSequence = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path


def zipped(files: Iterable[Path], path: Path) -> Path:
    """Write files into an archive, below a folder in it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, f"a b/ü/{file.name}")
    return path


def ras_affine(orientation: Sequence[float] = AXIAL) -> np.ndarray:
    """Affine of the volume of `dicom_datasets` with axes (column, row, slice), by the definition of
    its attributes."""
    affine = np.eye(4)
    affine[:3, 0] = np.asarray(orientation[:3]) * SPACING[2]
    affine[:3, 1] = np.asarray(orientation[3:]) * SPACING[1]
    affine[:3, 2] = normal(orientation) * SPACING[0]
    affine[:3, 3] = ORIGIN
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def check_same_scan(scan, expected, atol=1e-6):
    np.testing.assert_array_equal(scan.voxels, expected.voxels)
    np.testing.assert_allclose(scan.affine, expected.affine, atol=atol)
