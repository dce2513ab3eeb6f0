"""Scans that have to be refused: each is made from one that is read, by one change."""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid
from scan_builders import CORONAL, SAGITTAL, dicom_datasets, head_volume, multiframe, save

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
HEADER_AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
PIXEL_DATA = b"\xe0\x7f\x10\0OW\0\0"
"""How the pixels begin in explicit little endian; four bytes of length follow."""

# --- DICOM: one change to the data sets of a series ---


def move(k, offset):
    def change(datasets):
        position = np.array(datasets[k].ImagePositionPatient, float) + offset
        datasets[k].ImagePositionPatient = [float(x) for x in position]

    return change


def each(**attributes):
    def change(datasets):
        for dataset in datasets:
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

    return change


def one(**attributes):
    return lambda datasets: each(**attributes)(datasets[3:4])


def tilted(slices, y, z, x=0):
    return slices(ImageOrientationPatient=[1, 0, 0, x, y, z])


def without(keyword):
    def change(datasets):
        for dataset in datasets:
            delattr(dataset, keyword)

    return change


def raw(keyword, value):
    """Store bytes that pydicom would refuse to write as a value of this attribute (in implicit
    little endian)."""

    def change(datasets):
        tag = pydicom.tag.Tag(keyword)
        for dataset in datasets:
            dataset[tag] = RawDataElement(tag, None, len(value), value, 0, True, True)

    return change


def shear(datasets):
    for k, dataset in enumerate(datasets):
        move(0, [0, 0.4 * k, 0])([dataset])


def more(datasets, added, at=slice(0, 0), **attributes):
    """Put slices into a series, as if they belonged to it."""
    first = datasets[0]
    uids = {name: first.get(name) for name in ("SeriesInstanceUID", "StudyInstanceUID")}
    each(**uids, **attributes)(added)
    datasets[at] = added


def localizer(datasets):
    more(datasets, dicom_datasets(head_volume(1, rows=32), orientation=SAGITTAL))


def second_echo(datasets):
    frame = datasets[0].FrameOfReferenceUID
    more(datasets, dicom_datasets(head_volume(), EchoTime=9.2), FrameOfReferenceUID=frame)


def same_instance(datasets):
    one(SOPInstanceUID=datasets[0].SOPInstanceUID)(datasets)


def smaller_slice(datasets):
    place = {"FrameOfReferenceUID": datasets[0].FrameOfReferenceUID}
    place["ImagePositionPatient"] = [-30.0, -40.0, -46.0]
    more(datasets, dicom_datasets(head_volume(1, rows=10)), slice(2, 3), **place)


BAD_SERIES = {
    "a slice is missing": (lambda datasets: datasets.pop(3), "missing_slice"),
    "three slices are missing": (lambda data: data.__delitem__(slice(2, 5)), "missing_slice"),
    "two patients": (one(PatientID="CANARY_OTHER"), "mixed_identity"),
    "a slice without the patient": (one(PatientID=""), "mixed_identity"),
    "two studies": (one(StudyInstanceUID="1.2.3"), "mixed_identity"),
    "one SOPInstanceUID in all slices": (each(SOPInstanceUID="1.2.3"), "mixed_identity"),
    "one SOPInstanceUID in two slices": (same_instance, "mixed_identity"),
    "a slice is there twice": (lambda datasets: datasets.append(datasets[2]), "duplicate_slice"),
    "a slice lies beside another": (move(3, [5, 0, -2]), "duplicate_slice"),
    "two echoes": (second_echo, "duplicate_slice"),
    "a slice is off by a fifth": (move(3, [0, 0, 0.4]), "uneven_spacing"),
    "tilted gantry": (shear, "not_a_stack"),
    "a slice is tilted": (tilted(one, 0.999, 0.0447), "mixed_orientation"),
    "localizer in the series": (localizer, "mixed_orientation"),
    "two frames of reference": (one(FrameOfReferenceUID="1.2.3"), "mixed_frame_of_reference"),
    "no frame of reference": (without("FrameOfReferenceUID"), "missing_geometry"),
    "a smaller slice": (smaller_slice, "mixed_size"),
    "another pixel spacing": (one(PixelSpacing=[1.5, 1.2]), "mixed_size"),
    "no position": (without("ImagePositionPatient"), "missing_geometry"),
    "no orientation": (without("ImageOrientationPatient"), "missing_geometry"),
    "no pixel spacing": (without("PixelSpacing"), "missing_geometry"),
    "position of one slice is empty": (one(ImagePositionPatient=None), "missing_geometry"),
    "position of two numbers": (one(ImagePositionPatient=[1.0, 2.0]), "missing_geometry"),
    "position is text": (raw("ImagePositionPatient", rb"CANARY\0\0 "), "missing_geometry"),
    "position is NaN": (raw("ImagePositionPatient", rb"nan\0\0 "), "missing_geometry"),
    "pixel spacing is zero": (each(PixelSpacing=[0, 0]), "missing_geometry"),
    "pixel spacing is negative": (each(PixelSpacing=[-1, 1]), "missing_geometry"),
    "orientation is zero": (each(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "missing_geometry"),
    "orientation is skewed": (tilted(each, 0.954, 0, 0.3), "missing_geometry"),
    "pixels of a kilometre": (each(PixelSpacing=[1e6, 1e6]), "voxel_size"),
    "pixels of a micrometre": (each(PixelSpacing=[1e-3, 1e-3]), "voxel_size"),
    "rescale slope is zero": (one(RescaleSlope=0, RescaleIntercept=0), "bad_rescale"),
    "rescale slope is NaN": (raw("RescaleSlope", b"nan "), "bad_rescale"),
    "rescale intercept is infinite": (raw("RescaleIntercept", b"inf "), "bad_rescale"),
    "rescale slope is text": (raw("RescaleSlope", b"CANARY"), "bad_rescale"),
    "colour": (each(PhotometricInterpretation="RGB", SamplesPerPixel=3), "not_monochrome"),
    "palette": (one(PhotometricInterpretation="PALETTE COLOR"), "not_monochrome"),
    "colours of another kind": (raw("PhotometricInterpretation", b"CANARY"), "not_monochrome"),
    "no photometric interpretation": (without("PhotometricInterpretation"), "not_monochrome"),
    "no pixels": (without("PixelData"), "no_image"),
    "pixels of one slice are cut short": (one(PixelData=b"\0" * 100), "unreadable"),
    "every voxel is the same": (each(PixelData=b"\7\0" * 320), "constant_image"),
    "no series UID": (without("SeriesInstanceUID"), "unreadable"),
    "rows are absent": (without("Rows"), "unreadable"),
    "rows are of no size": (each(Rows=0), "unreadable"),
    "one slice": (lambda datasets: datasets.__delitem__(slice(1, None)), "single_slice"),
    "frames without positions": (each(NumberOfFrames=2), "missing_geometry"),
    "tilted by 31 degrees": (tilted(each, 0.857167301, 0.515038075), "not_a_stack"),
    "implausibly large slices": (each(Rows=60000, Columns=60000), "too_large"),
}
"""What is wrong -> the change, and the code of the refusal."""

REAL_FILES = {
    "MR_truncated.dcm": "single_slice",
    "image_dfl.dcm": "unsupported_compression",
    "meta_missing_tsyntax.dcm": "unreadable",
    "ExplVR_LitEndNoMeta.dcm": "unreadable",
    "ExplVR_BigEndNoMeta.dcm": "unreadable",
    "SC_rgb_rle.dcm": "not_monochrome",
    "SC_rgb_jpeg.dcm": "not_monochrome",
    "examples_palette.dcm": "not_monochrome",
    "SC_rgb_rle_2frame.dcm": "missing_geometry",
    "JPEG2000.dcm": "missing_geometry",
    "test-SR.dcm": "no_image",
    "rtplan_truncated.dcm": "no_image",
    "test1.json": "unsupported_format",
}
"""Test files of pydicom -> the code of the refusal."""


# --- DICOM: one change to the bytes of a file ---


def second_file(change: Callable[[bytes], bytes], **options) -> Callable[[Path], Path]:
    """Function that writes a series of two slices and changes the bytes of the second file."""

    def make(folder):
        file = save(dicom_datasets(head_volume(2, 64, 64), **options), folder) / "IM0001"
        file.write_bytes(change(file.read_bytes()))
        return folder

    return make


def patch(old: bytes, new: bytes, **options) -> Callable[[Path], Path]:
    """The same, which replaces bytes that occur once."""

    def change(content):
        assert content.count(old) == 1 and len(old) > 3
        return content.replace(old, new)

    return second_file(change, **options)


def cut(length: int, **options) -> Callable[[Path], Path]:
    """The same, which cuts the file at `length` (negative: from the end)."""
    return second_file(lambda content: content[:length], **options)


def nested(depth: int) -> Callable[[Path], Path]:
    """Function that writes a series whose first file holds sequences in sequences."""

    def make(folder):
        datasets = dicom_datasets(head_volume(2))
        datasets[0].ReferencedImageSequence = [pydicom.Dataset()]
        file = save(datasets, folder) / "IM0000"
        content = file.read_bytes()
        at = content.index(b"\x08\0\x40\x11SQ")  # a sequence of one empty item: 20 bytes
        start = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
        end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
        file.write_bytes(content[:at] + start * depth + end * depth + content[at + 20 :])
        return folder

    return make


def two_gigabytes(folder):
    """Pixels that claim two gigabytes, in a file of a few hundred bytes."""
    for file in save(dicom_datasets(head_volume(2)), folder).iterdir():
        content = file.read_bytes()
        at = content.index(PIXEL_DATA) + 8
        file.write_bytes(content[:at] + b"\xf0\xff\xff\x7f" + content[at + 4 : -20])
    return folder


def sparse(path: Path, length: int) -> Path:
    """Lengthen a file to `length` bytes of zeros, which take no room on the disk."""
    os.truncate(path, length)
    return path


def huge_slice(folder):
    """A slice with 80 MB of pixels behind those that it declares."""
    file = save(dicom_datasets(head_volume(2)), folder) / "IM0001"
    content = file.read_bytes()
    at = content.index(PIXEL_DATA) + 8
    file.write_bytes(content[:at] + struct.pack("<I", 80 * 2**20))
    sparse(file, at + 4 + 80 * 2**20)
    return folder


def two_multiframes(folder):
    datasets = dicom_datasets(head_volume())
    for k, uid in enumerate((generate_uid(), generate_uid())):
        image = highdicom.legacy.LegacyConvertedEnhancedMRImage(datasets, "1.2.3", 1, uid, k + 1)
        image.save_as(folder / f"{k}.dcm")
    return folder


def multiframe_of_two_volumes(folder):
    datasets = dicom_datasets(head_volume())
    second_echo(datasets)
    return multiframe(datasets, folder / "echoes.dcm").parent


def damaged_multiframe(folder):
    path = multiframe(dicom_datasets(head_volume()), folder / "CANARY_JOHN.dcm")
    path.write_bytes(path.read_bytes()[:-300])
    return folder


def huge_multiframe(folder):
    path = multiframe(dicom_datasets(head_volume()), folder / "e.dcm")
    return sparse(path, 3 * 2**30).parent


def coronal_slice(folder):
    return save(dicom_datasets(head_volume(1), orientation=CORONAL), folder)


def dicomdir(folder):
    (folder / "DICOMDIR").write_bytes((PYDICOM_FILES / "dicomdirtests" / "DICOMDIR").read_bytes())
    return folder


COMPRESSED, RLE = {"transfer_syntax": JPEG2000Lossless}, {"transfer_syntax": RLELossless}
OUTSIDE = b"\2\0\0\0\xff\xff\xff\xff"
RUN_LENGTHS = b"\x02\0\0\0\x40\0\0\0"  # two segments, the first at byte 64
SYNTAX = b"1.2.840.10008.1.2.1\0"

BAD_DICOM_FILES = {
    "cut in the preamble": (cut(100), "single_slice"),  # what is left is no DICOM file
    "cut behind the preamble": (cut(133), "unreadable"),
    "cut in the header": (cut(700), "unreadable"),
    "cut in the pixels": (cut(-300), "unreadable"),
    "compressed pixels cut by little": (cut(-30, **COMPRESSED), "unreadable"),
    "compressed pixels cut by much": (cut(-400, **COMPRESSED), "unreadable"),
    "run lengths lead out of the file": (patch(RUN_LENGTHS, OUTSIDE, **RLE), "unreadable"),
    "run lengths are off by one": (patch(RUN_LENGTHS, b"\2\0\0\0\x41\0\0\0", **RLE), "unreadable"),
    "transfer syntax that there is not": (
        patch(SYNTAX, b"1.2.840.10008.1.2.7\0"),
        "unsupported_compression",
    ),
    "transfer syntax is text": (patch(SYNTAX, b"CANARY^JOHN^19010203"), "unsupported_compression"),
    "sequences 300 deep": (nested(300), "unreadable"),
    "pixels of two gigabytes": (two_gigabytes, "unreadable"),
    "file of 80 megabytes for one slice": (huge_slice, "too_large"),
    "file of three gigabytes": (huge_multiframe, "too_large"),
    "two multi-frame objects": (two_multiframes, "not_3d"),
    "multi-frame object of two volumes": (multiframe_of_two_volumes, "duplicate_slice"),
    "multi-frame object cut short": (damaged_multiframe, "unreadable"),
    "a DICOMDIR alone": (dicomdir, "unsupported_format"),
    "coronal slice": (coronal_slice, "single_slice"),
}
"""What is wrong -> a function that writes such a scan into an empty folder and returns its path,
and the code."""


# --- NIfTI ---


def nifti(path, voxels=None, affine=HEADER_AFFINE):
    voxels = head_volume().astype("int16") if voxels is None else voxels
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine, dtype=voxels.dtype), path)
    return path


def with_voxel(value):
    voxels = head_volume().astype("float32")
    voxels[1, 2, 3] = value
    return voxels


def rotated(degrees):
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(x=np.radians(degrees))
    return affine


FLAT = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
RGB = np.zeros((4, 5, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))

BAD_NIFTI = {
    "NaN": ({"voxels": with_voxel(np.nan)}, "not_finite"),
    "Inf": ({"voxels": with_voxel(np.inf)}, "not_finite"),
    "beyond float32": ({"voxels": with_voxel(1).astype("float64") * 1e300}, "not_finite"),
    "all zero": ({"voxels": np.zeros((8, 9, 10), "uint8")}, "constant_image"),
    "constant": ({"voxels": np.full((8, 9, 10), 7, "int16")}, "constant_image"),
    "four volumes": ({"voxels": head_volume().reshape(8, 10, 8, 4)}, "not_3d"),
    "vectors": ({"voxels": head_volume().reshape(8, 10, 8, 1, 4)}, "not_3d"),
    "a line": ({"voxels": np.arange(9, dtype="int16")}, "not_3d"),
    "complex": ({"voxels": head_volume().astype("complex64")}, "not_monochrome"),
    "RGB": ({"voxels": RGB}, "not_monochrome"),
    "two-dimensional": ({"voxels": head_volume()[0].astype("int16")}, "single_slice"),
    "one slice": ({"voxels": head_volume()[:, :, :1]}, "single_slice"),
    "one sagittal slice": ({"voxels": head_volume()[:1]}, "single_slice"),
    "5000 slices": ({"voxels": np.zeros((2, 2, 5000), "uint8")}, "too_large"),
    "flat": ({"affine": FLAT}, "singular_affine"),
    "sheared": ({"affine": np.eye(4) + np.eye(4, k=1) * [0, 0.2, 0, 0]}, "sheared_affine"),
    "huge voxels": ({"affine": np.diag([1e6, 1e6, 1e6, 1])}, "voxel_size"),
    "tiny voxels": ({"affine": np.diag([1e-4, 1e-4, 1e-4, 1])}, "voxel_size"),
    "oblique by 45 degrees": ({"affine": rotated(45)}, "oblique"),
    "oblique by 31 degrees": ({"affine": rotated(31)}, "oblique"),
}
"""What is wrong -> arguments of `nifti`, and the code of the refusal."""

HEADER_PATCHES = {
    "magic": (344, b"nope", "unsupported_format"),
    "magic of a pair of files": (344, b"ni1\0", "unsupported_format"),
    "header size": (0, b"\1\2\3\4", "unreadable"),
    "sample format": (70, b"\x77\x77", "unreadable"),
    "negative extent": (42, b"\xff\xff", "unreadable"),
    "extent of zero": (42, b"\0\0", "unreadable"),
    "more voxels than the file holds": (46, b"\xff\x01", "unreadable"),
    "most voxels that fit a header": (42, b"\xff\x7f" * 3, "too_large"),
    "offset of the voxels": (108, np.float32(1e30).tobytes(), "unreadable"),
    "offset of the voxels is NaN": (108, np.float32(np.nan).tobytes(), "unreadable"),
    "infinite slope": (112, np.float32(np.inf).tobytes(), "bad_rescale"),
    "infinite intercept": (112, np.array([2, np.inf], "<f4").tobytes(), "bad_rescale"),
    "NaN in the sform": (280, np.float32(np.nan).tobytes(), "missing_geometry"),
    "voxel of size zero": (280, np.zeros(4, "<f4").tobytes(), "singular_affine"),
    "units": (123, b"\x07", "unreadable"),
}
"""What is wrong -> offset in the NIfTI-1 header, bytes written there, and the code."""


def patched_nifti(path: Path, offset: int, content: bytes) -> Path:
    plain = nifti(path.with_name("whole.nii"))
    data = bytearray(plain.read_bytes())
    plain.unlink()
    data[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def flipped_bit(folder):
    """A bit is wrong in voxels packed without compression: only the checksum tells."""
    path = nifti(folder / "CANARY_JOHN.nii.gz")
    stored = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    stored[-1000] ^= 1
    path.write_bytes(stored)
    return path


def nifti_bomb(folder):
    """A hundred megabytes behind the voxels, in a file of a hundred kilobytes."""
    whole = nifti(folder / "whole.nii")
    path = folder / "CANARY_JOHN.nii.gz"
    with gzip.open(path, "wb", compresslevel=9) as out:
        out.write(whole.read_bytes())
        for _ in range(100):
            out.write(b"\0" * 2**20)
    whole.unlink()
    return path


def cut_nifti(keep: float, name: str) -> Callable[[Path], Path]:
    def make(folder):
        path = nifti(folder / name)
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        return path

    return make


def without_geometry(folder):
    nib.save(nib.Nifti1Image(head_volume(), None), folder / "CANARY_JOHN.nii.gz")
    assert nib.load(folder / "CANARY_JOHN.nii.gz").header["sform_code"] == 0
    return folder / "CANARY_JOHN.nii.gz"


def qform_that_is_no_rotation(folder):
    image = nib.Nifti1Image(head_volume(), None)
    image.set_qform(np.eye(4), code=1)
    nib.save(image, folder / "CANARY_JOHN.nii")
    data = bytearray((folder / "CANARY_JOHN.nii").read_bytes())
    data[256:268] = np.array([0.9, 0.9, 0.9], "<f4").tobytes()
    (folder / "CANARY_JOHN.nii").write_bytes(data)
    return folder / "CANARY_JOHN.nii"


def content(name: str, data: bytes) -> Callable[[Path], Path]:
    """Function that writes one file of these bytes."""

    def make(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return make


def dangling(name: str) -> Callable[[Path], Path]:
    """Function that writes a link that leads nowhere, and returns the folder that holds it."""

    def make(folder):
        (folder / name).symlink_to(folder / ".git/annex/objects/absent")
        return folder / name

    return make


BAD_NIFTI_FILES = {
    "cut in the header": (cut_nifti(0.02, "CANARY_JOHN.nii"), "unsupported_format"),
    "cut in half": (cut_nifti(0.5, "CANARY_JOHN.nii"), "unreadable"),
    "cut by little": (cut_nifti(0.999, "CANARY_JOHN.nii"), "unreadable"),
    "packed and cut in half": (cut_nifti(0.5, "CANARY_JOHN.nii.gz"), "unreadable"),
    "packed and cut by little": (cut_nifti(0.999, "CANARY_JOHN.nii.gz"), "unreadable"),
    "no qform and no sform": (without_geometry, "missing_geometry"),
    "qform that is no rotation": (qform_that_is_no_rotation, "missing_geometry"),
    "a flipped bit": (flipped_bit, "unreadable"),
    "bomb": (nifti_bomb, "unreadable"),
    "empty": (content("CANARY_JOHN.nii.gz", b""), "unsupported_format"),
    "text": (content("CANARY_JOHN.nii", b"CANARY^JOHN " * 100), "unsupported_format"),
    "gzip of nothing": (content("CANARY_JOHN.nii.gz", gzip.compress(b"")), "unsupported_format"),
    "gzip that is none": (content("CANARY_JOHN.nii.gz", b"\x1f\x8b CANARY"), "unreadable"),
    "link that leads nowhere": (dangling("CANARY_JOHN.nii.gz"), "not_found"),
}
"""As `BAD_DICOM_FILES`."""


# --- archives ---


def zipped(folder: Path, *more: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    """Write a series that is read into an archive, and more members."""
    series = save(dicom_datasets(head_volume()), folder / "series")
    with zipfile.ZipFile(folder / "CANARY_JOHN.zip", "w") as archive:
        for file in sorted(series.iterdir()):
            archive.write(file, file.name)
            file.unlink()
        for name, data in more:
            archive.writestr(name, data)
    series.rmdir()
    return folder / "CANARY_JOHN.zip"


def link_member() -> tuple[zipfile.ZipInfo, bytes]:
    member = zipfile.ZipInfo("link")
    member.external_attr = 0o120777 << 16
    return member, b"/etc/passwd"


def edited(change: Callable[[bytearray], object]) -> Callable[[Path], Path]:
    """Function that writes an archive and changes its bytes in place."""

    def make(folder):
        path = zipped(folder)
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)
        return path

    return make


@edited
def damaged_member(data):
    data[data.index(PIXEL_DATA) + 40] ^= 0xFF  # in the pixels: the member's checksum tells


@edited
def encrypted(data):
    data[data.index(b"PK\1\2") + 8] |= 1


@edited
def unknown_method(data):
    for start, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        data[data.index(start) + offset] = 99


@edited
def cut_archive(data):
    del data[-200:]


def archive_bomb(folder):
    """Eighty megabytes of zeros in eighty kilobytes."""
    path = folder / "CANARY_JOHN.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("IM0000", bytes(80 * 2**20))
    return path


def archive_that_lies(folder):
    """A member of twenty megabytes that claims to have a thousand bytes."""
    path, whole = folder / "CANARY_JOHN.zip", nifti(folder / "CANARY_JOHN.nii")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scan.nii", whole.read_bytes() + bytes(20 * 2**20))
    whole.unlink()
    data = bytearray(path.read_bytes())
    for start, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = data.index(start) + offset
        data[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    return path


def archive_of_many(folder):
    """A table of contents of 50 001 entries, made of that of one."""
    path = folder / "CANARY_JOHN.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("00000"), b"")
    data = path.read_bytes()
    at = data.index(b"PK\1\2")
    entries = b"".join(data[at:-22].replace(b"00000", b"%05d" % number) for number in range(50_001))
    counts = struct.pack("<HHL", 50_001, 50_001, len(entries))
    path.write_bytes(data[:at] + entries + data[-22:-14] + counts + data[-6:])
    return path


def archive_in_archive(folder):
    inner = zipped(folder / "inner")
    with zipfile.ZipFile(folder / "CANARY_JOHN.zip", "w") as archive:
        archive.write(inner, "inner.zip")
    inner.unlink()
    inner.parent.rmdir()
    return folder / "CANARY_JOHN.zip"


BAD_ARCHIVES = {
    "slip": (lambda folder: zipped(folder, ("../evil", b"")), "unsafe_archive"),
    "absolute path": (lambda folder: zipped(folder, ("/tmp/evil", b"")), "unsafe_archive"),
    "drive": (lambda folder: zipped(folder, ("C:\\evil", b"")), "unsafe_archive"),
    "symbolic link": (lambda folder: zipped(folder, link_member()), "unsafe_archive"),
    "bomb": (archive_bomb, "unsafe_archive"),
    "fifty thousand members": (archive_of_many, "unsafe_archive"),
    "member that is larger than it says": (archive_that_lies, "unreadable"),
    "damaged member": (damaged_member, "unreadable"),
    "encrypted": (encrypted, "unreadable"),
    "unknown method": (unknown_method, "unsafe_archive"),
    "cut short": (cut_archive, "unreadable"),
    "no archive": (content("CANARY_JOHN.zip", b"CANARY^JOHN"), "unreadable"),
    "empty": (content("CANARY_JOHN.zip", b"PK\5\6" + bytes(18)), "empty"),
    "archive in the archive": (archive_in_archive, "unsupported_format"),
    "empty file": (content("CANARY_JOHN.zip", b""), "unreadable"),
}
"""As `BAD_DICOM_FILES`."""


# --- paths that hold no scan: a search of a tree passes them over, asked for by name they are
# refused ---


def empty_folder(folder):
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    return folder


def pipe(folder):
    os.mkfifo(folder / "CANARY_JOHN.nii")
    return folder / "CANARY_JOHN.nii"


def pair_of_files(folder):
    pair = nib.Nifti1Pair(head_volume().astype("int16"), HEADER_AFFINE)
    nib.save(pair, folder / "CANARY_JOHN.img")
    return folder / "CANARY_JOHN.hdr"


NO_SCANS = {
    "nothing": (lambda folder: folder / "CANARY_JOHN", "not_found"),
    "nothing with the name of a scan": (lambda folder: folder / "CANARY_JOHN.nii", "not_found"),
    "empty folder with a loop and a pipe": (empty_folder, "empty"),
    "pipe": (pipe, "unsupported_format"),
    "text": (content("CANARY_JOHN.txt", b"no scan"), "unsupported_format"),
    "empty file": (content("CANARY_JOHN", b""), "unreadable"),
    "header of a pair of files": (pair_of_files, "unsupported_format"),
    "link that leads nowhere": (dangling("IM0001"), "not_found"),
}
"""As `BAD_DICOM_FILES`."""


def bad_series(change: Callable) -> Callable[[Path], Path]:
    """Function that writes a changed series into a folder."""

    def make(folder):
        datasets = dicom_datasets(head_volume(), transfer_syntax=ImplicitVRLittleEndian)
        change(datasets)
        return save(datasets, folder)

    return make


def real_file(name: str) -> Callable[[Path], Path]:
    return content(name, (PYDICOM_FILES / name).read_bytes())


def refused_scans() -> dict[str, tuple[Callable[[Path], Path], str]]:
    """What is wrong -> a function that writes such a scan into an empty folder, and the code."""
    gz = "CANARY_JOHN.nii.gz"
    cases = {name: (bad_series(change), code) for name, (change, code) in BAD_SERIES.items()}
    cases |= {name: (real_file(name), code) for name, code in REAL_FILES.items()}
    cases = {f"DICOM, {name}": case for name, case in {**cases, **BAD_DICOM_FILES}.items()}
    for name, (arguments, code) in BAD_NIFTI.items():
        cases[f"NIfTI, {name}"] = lambda folder, a=arguments: nifti(folder / gz, **a), code
    for name, (*change, code) in HEADER_PATCHES.items():
        cases[f"NIfTI, {name}"] = lambda folder, c=change: patched_nifti(folder / gz, *c), code
    cases |= {f"NIfTI, {name}": case for name, case in BAD_NIFTI_FILES.items()}
    return cases | {f"archive, {name}": case for name, case in BAD_ARCHIVES.items()}
