"""Scans that have to be refused: each is made from one that is read, by one change.

Every table holds: what is wrong -> a function that writes such a scan into an empty folder and
returns its path, and the code of the refusal.
"""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid
from scan_builders import SAGITTAL, dicom_datasets, head_volume, multiframe, save

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
NII, GZ, ZIP = "CANARY_JOHN.nii", "CANARY_JOHN.nii.gz", "CANARY_JOHN.zip"
PIXEL_DATA = b"\xe0\x7f\x10\0OW\0\0"
"""How the pixels begin in explicit little endian; four bytes of length follow."""

Make = Callable[[Path], Path]
Change = Callable[[bytes], bytes]


def content(name: str, data: bytes) -> Make:
    """Function that writes one file of these bytes."""

    def make(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return make


def dangling(name: str) -> Make:
    """Function that writes a link that leads nowhere."""

    def make(folder):
        (folder / name).symlink_to(folder / ".git/annex/objects/absent")
        return folder / name

    return make


def put(at: int, new: bytes) -> Change:
    return lambda data: data[:at] + new + data[at + len(new) :]


# --- DICOM: one change to the data sets of a series ---


def each(**attributes):
    def change(datasets):
        for dataset in datasets:
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

    return change


def one(**attributes):
    return lambda datasets: each(**attributes)(datasets[3:4])


def tilted(slices, *column):
    return slices(ImageOrientationPatient=[1.0, 0.0, 0.0, *column])


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
        dataset.ImagePositionPatient[1] += 0.4 * k


def more(datasets, added, **attributes):
    """Put slices into a series, as if they belonged to it."""
    uids = {name: datasets[0].get(name) for name in ("SeriesInstanceUID", "StudyInstanceUID")}
    each(**uids, **attributes)(added)
    datasets += added


def localizer(datasets):
    more(datasets, dicom_datasets(head_volume(1, rows=32), orientation=SAGITTAL))


def second_echo(datasets):
    frame = datasets[0].FrameOfReferenceUID
    more(datasets, dicom_datasets(head_volume(), EchoTime=9.2), FrameOfReferenceUID=frame)


def smaller_slice(datasets):
    place = {
        word: datasets[2].get(word) for word in ("FrameOfReferenceUID", "ImagePositionPatient")
    }
    del datasets[2]
    more(datasets, dicom_datasets(head_volume(1, rows=10)), **place)


def same_instance(datasets):
    one(SOPInstanceUID=datasets[0].SOPInstanceUID)(datasets)


_SERIES = {
    "a slice is missing": (lambda datasets: datasets.pop(3), "missing_slice"),
    "two patients": (one(PatientID="CANARY_OTHER"), "mixed_identity"),
    "a slice without the patient": (one(PatientID=""), "mixed_identity"),
    "two studies": (one(StudyInstanceUID="1.2.3"), "mixed_identity"),
    "one SOPInstanceUID in two slices": (same_instance, "mixed_identity"),
    "a slice is there twice": (lambda datasets: datasets.append(datasets[2]), "duplicate_slice"),
    "a slice lies beside another": (one(ImagePositionPatient=[-25, -40, -46]), "duplicate_slice"),
    "two echoes": (second_echo, "duplicate_slice"),
    "a slice is off by a tenth": (one(ImagePositionPatient=[-30, -40, -43.8]), "uneven_spacing"),
    "tilted gantry": (shear, "not_a_stack"),
    "tilted by 31 degrees": (tilted(each, 0, 0.857167301, 0.515038075), "not_a_stack"),
    "a slice is tilted": (tilted(one, 0, 0.99995, 0.01), "mixed_orientation"),
    "localizer in the series": (localizer, "mixed_orientation"),
    "two frames of reference": (one(FrameOfReferenceUID="1.2.3"), "mixed_frame_of_reference"),
    "no frame of reference": (without("FrameOfReferenceUID"), "missing_geometry"),
    "a smaller slice": (smaller_slice, "mixed_size"),
    "another pixel spacing": (one(PixelSpacing=[1.5, 1.26]), "mixed_size"),
    "no position": (without("ImagePositionPatient"), "missing_geometry"),
    "no orientation": (without("ImageOrientationPatient"), "missing_geometry"),
    "no pixel spacing": (without("PixelSpacing"), "missing_geometry"),
    "position of one slice is empty": (one(ImagePositionPatient=None), "missing_geometry"),
    "position of two numbers": (one(ImagePositionPatient=[1.0, 2.0]), "missing_geometry"),
    "position is text": (raw("ImagePositionPatient", rb"CANARY\0\0 "), "missing_geometry"),
    "position is NaN": (raw("ImagePositionPatient", rb"nan\0\0 "), "missing_geometry"),
    "pixel spacing is zero": (each(PixelSpacing=[0, 0]), "missing_geometry"),
    "orientation is zero": (each(ImageOrientationPatient=[0] * 6), "missing_geometry"),
    "orientation is skewed": (tilted(each, 0.3, 0.954, 0), "missing_geometry"),
    "pixels of a kilometre": (each(PixelSpacing=[1e6, 1e6]), "voxel_size"),
    "pixels of a micrometre": (each(PixelSpacing=[1e-3, 1e-3]), "voxel_size"),
    "rescale slope is zero": (one(RescaleSlope=0, RescaleIntercept=0), "bad_rescale"),
    "rescale slope is NaN": (raw("RescaleSlope", b"nan "), "bad_rescale"),
    "rescale intercept is infinite": (raw("RescaleIntercept", b"inf "), "bad_rescale"),
    "rescale slope is text": (raw("RescaleSlope", b"CANARY"), "bad_rescale"),
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
    "implausibly large slices": (each(Rows=60000, Columns=60000), "too_large"),
}
"""What is wrong -> the change, and the code of the refusal."""


def series(change: Callable) -> Make:
    """Function that writes a changed series."""

    def make(folder):
        datasets = dicom_datasets(head_volume(), transfer_syntax=ImplicitVRLittleEndian)
        change(datasets)
        return save(datasets, folder)

    return make


_REAL_FILES = {
    "MR_truncated.dcm": "single_slice",
    "image_dfl.dcm": "unsupported_compression",
    "meta_missing_tsyntax.dcm": "unreadable",
    "ExplVR_LitEndNoMeta.dcm": "unreadable",
    "ExplVR_BigEndNoMeta.dcm": "unreadable",
    "SC_rgb_rle.dcm": "not_monochrome",
    "examples_palette.dcm": "not_monochrome",
    "SC_rgb_rle_2frame.dcm": "missing_geometry",
    "JPEG2000.dcm": "missing_geometry",
    "test-SR.dcm": "no_image",
    "rtplan_truncated.dcm": "no_image",
    "test1.json": "unsupported_format",
}
"""Test files of pydicom -> the code of the refusal."""


# --- DICOM: one change to the bytes of a file ---


def second_file(change: Change, **options) -> Make:
    """Function that writes a series of two slices and changes the bytes of the second file."""

    def make(folder):
        file = save(dicom_datasets(head_volume(2, 64, 64), **options), folder) / "IM0001"
        file.write_bytes(change(file.read_bytes()))
        return folder

    return make


def cut(length: int, **options) -> Make:
    return second_file(lambda data: data[:length], **options)


def swap(old: bytes, new: bytes, **options) -> Make:
    return second_file(lambda data: put(data.index(old), new)(data), **options)


def nested(depth: int) -> Make:
    """Function that writes a series whose second file holds sequences in sequences."""

    def change(data):
        at = data.index(b"\x08\0\x40\x11SQ")  # a sequence of one empty item: 20 bytes
        start = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
        end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
        return data[:at] + start * depth + end * depth + data[at + 20 :]

    return second_file(change, ReferencedImageSequence=[pydicom.Dataset()])


def lengthened(megabytes: int) -> Make:
    """Function that writes a series, with zeros behind the second file that take no room."""

    def make(folder):
        os.truncate(cut(-1)(folder) / "IM0001", megabytes * 2**20)
        return folder

    return make


def two_gigabytes(data):
    return put(data.index(PIXEL_DATA) + 8, b"\xf0\xff\xff\x7f")(data)[:-20]


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


def dicomdir(folder):
    data = (PYDICOM_FILES / "dicomdirtests" / "DICOMDIR").read_bytes()
    return content("DICOMDIR", data)(folder).parent


COMPRESSED, RLE = {"transfer_syntax": JPEG2000Lossless}, {"transfer_syntax": RLELossless}
RUN_LENGTHS = b"\x02\0\0\0\x40\0\0\0"  # two segments, the first at byte 64
OUTSIDE = b"\2\0\0\0\xff\xff\xff\xff"
SYNTAX = b"1.2.840.10008.1.2.1\0"

DICOM = {
    **{name: (series(change), code) for name, (change, code) in _SERIES.items()},
    **{
        name: (content(name, (PYDICOM_FILES / name).read_bytes()), code)
        for name, code in _REAL_FILES.items()
    },
    "cut in the preamble": (cut(100), "single_slice"),  # what is left is no DICOM file
    "cut behind the preamble": (cut(133), "unreadable"),
    "cut in the header": (cut(700), "unreadable"),
    "cut in the pixels": (cut(-300), "unreadable"),
    "compressed pixels cut by little": (cut(-30, **COMPRESSED), "unreadable"),
    "compressed pixels cut by much": (cut(-400, **COMPRESSED), "unreadable"),
    "run lengths lead out of the file": (swap(RUN_LENGTHS, OUTSIDE, **RLE), "unreadable"),
    "run lengths are off by one": (swap(RUN_LENGTHS, b"\2\0\0\0\x41", **RLE), "unreadable"),
    "unknown transfer syntax": (swap(SYNTAX, b"1.2.840.10008.1.2.7\0"), "unsupported_compression"),
    "transfer syntax is text": (swap(SYNTAX, b"CANARY^JOHN^19010203"), "unsupported_compression"),
    "sequences 300 deep": (nested(300), "unreadable"),
    "pixels of two gigabytes": (second_file(two_gigabytes), "unreadable"),
    "file of 80 megabytes for one slice": (lengthened(80), "too_large"),
    "file of three gigabytes": (lengthened(3 * 2**10), "too_large"),
    "two multi-frame objects": (two_multiframes, "not_3d"),
    "multi-frame object of two volumes": (multiframe_of_two_volumes, "duplicate_slice"),
    "multi-frame object cut short": (damaged_multiframe, "unreadable"),
    "a DICOMDIR alone": (dicomdir, "unsupported_format"),
}


# --- NIfTI ---


def nifti(path, voxels=None, affine=(1.0, 1.0, 2.0, 1.0)):
    voxels = head_volume().astype("int16") if voxels is None else voxels
    affine = np.diag(affine) if np.ndim(affine) == 1 else affine
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine, dtype=voxels.dtype), path)
    return path


def patched(change: Change, name: str = NII) -> Make:
    """Function that writes a scan and changes its bytes."""

    def make(folder):
        path = nifti(folder / name)
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


def packed(change: Change) -> Make:
    """The same, with the bytes packed afterwards."""
    return patched(lambda data: gzip.compress(change(gzip.decompress(data)), 9), GZ)


def shortened(share: float, name: str = NII) -> Make:
    return patched(lambda data: data[: int(share * len(data))], name)


def flipped_bit(data):
    """In voxels packed without compression: only the checksum tells."""
    stored = bytearray(gzip.compress(gzip.decompress(data), compresslevel=0))
    stored[-1000] ^= 1
    return stored


def with_voxel(value):
    voxels = head_volume().astype("float32")
    voxels[1, 2, 3] = value
    return voxels


def rotated(degrees):
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(x=np.radians(degrees)))


RGB = np.zeros((4, 5, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
_IMAGES = {
    "NaN": ({"voxels": with_voxel(np.nan)}, "not_finite"),
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
    "flat": ({"affine": np.eye(4)[:, [0, 0, 2, 3]]}, "singular_affine"),
    "sheared": ({"affine": np.eye(4) + np.eye(4, k=1) * [0, 0.2, 0, 0]}, "sheared_affine"),
    "huge voxels": ({"affine": [1e6, 1e6, 1e6, 1]}, "voxel_size"),
    "tiny voxels": ({"affine": [1e-4, 1e-4, 1e-4, 1]}, "voxel_size"),
    "oblique by 31 degrees": ({"affine": rotated(31)}, "oblique"),
}
"""What is wrong -> arguments of `nifti`, and the code of the refusal."""
_HEADERS = {
    "magic": (344, b"nope", "unsupported_format"),
    "magic of a pair of files": (344, b"ni1\0", "unsupported_format"),
    "header size": (0, b"\1\2\3\4", "unreadable"),
    "sample format": (70, b"\x77\x77", "unreadable"),
    "negative extent": (42, b"\xff\xff", "unreadable"),
    "extent of zero": (42, b"\0\0", "unreadable"),
    "more voxels than the file holds": (46, b"\xff\x01", "unreadable"),
    "most voxels that fit a header": (42, b"\xff\x7f" * 3, "too_large"),
    "offset of the voxels": (108, struct.pack("<f", 1e30), "unreadable"),
    "offset of the voxels is NaN": (108, struct.pack("<f", np.nan), "unreadable"),
    "infinite slope": (112, struct.pack("<f", np.inf), "bad_rescale"),
    "infinite intercept": (112, struct.pack("<2f", 2, np.inf), "bad_rescale"),
    "NaN in the sform": (280, struct.pack("<f", np.nan), "missing_geometry"),
    "voxel of size zero": (280, struct.pack("<4f", 0, 0, 0, 0), "singular_affine"),
    "no qform and no sform": (252, b"\0\0\0\0", "missing_geometry"),
    "qform is no rotation": (252, struct.pack("<2h3f", 1, 0, 0.9, 0.9, 0.9), "missing_geometry"),
    "units": (123, b"\x07", "unreadable"),
}
"""What is wrong -> offset in the NIfTI-1 header, bytes written there, and the code."""

NIFTI = {
    **{
        name: (lambda folder, options=options: nifti(folder / GZ, **options), code)
        for name, (options, code) in _IMAGES.items()
    },
    **{name: (packed(put(*change)), code) for name, (*change, code) in _HEADERS.items()},
    **{
        f"{name}, not packed": (patched(put(*change)), code)
        for name, (*change, code) in _HEADERS.items()
    },
    "cut in the header": (shortened(0.02), "unsupported_format"),
    "cut in half": (shortened(0.5), "unreadable"),
    "cut by little": (shortened(0.999), "unreadable"),
    "packed and cut in half": (shortened(0.5, GZ), "unreadable"),
    "packed and cut by little": (shortened(0.999, GZ), "unreadable"),
    "a flipped bit": (patched(flipped_bit, GZ), "unreadable"),
    "bomb of a hundred megabytes": (packed(lambda data: data + bytes(100 * 2**20)), "unreadable"),
    "empty": (content(GZ, b""), "unsupported_format"),
    "text": (content(NII, b"CANARY^JOHN " * 100), "unsupported_format"),
    "gzip of nothing": (content(GZ, gzip.compress(b"")), "unsupported_format"),
    "gzip that is none": (content(GZ, b"\x1f\x8b CANARY"), "unreadable"),
    "link that leads nowhere": (dangling(GZ), "not_found"),
}


# --- archives ---


def archive(
    *members: tuple[str | zipfile.ZipInfo, bytes], change: Change = bytes, of_series: bool = True
) -> Make:
    """Function that writes an archive of a series and more members, and changes its bytes."""

    def make(folder):
        path = folder / ZIP
        with zipfile.ZipFile(path, "w") as out:
            for k, dataset in enumerate(dicom_datasets(head_volume()) if of_series else ()):
                dataset.save_as(file := BytesIO(), enforce_file_format=True)
                out.writestr(f"IM{k:04}", file.getvalue())
            for name, data in members:
                out.writestr(name, data, zipfile.ZIP_DEFLATED)
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


def link_member() -> tuple[zipfile.ZipInfo, bytes]:
    member = zipfile.ZipInfo("link")
    member.external_attr = 0o120777 << 16
    return member, b"/etc/passwd"


def changed_pixel(data):
    return put(data.index(PIXEL_DATA) + 40, b"\xff")(data)  # the member's checksum tells


def encrypted(data):
    return put(data.rindex(b"PK\1\2") + 8, b"\1")(data)


def of_a_thousand_bytes(data):
    data = put(data.rindex(b"PK\3\4") + 22, struct.pack("<I", 1000))(data)
    return put(data.rindex(b"PK\1\2") + 24, struct.pack("<I", 1000))(data)


def fifty_thousand(data):
    """A table of contents of 50 001 entries, made of that of one."""
    at = data.rindex(b"PK\1\2")
    entries = data[at:-22] * 50_001
    counts = struct.pack("<HHL", 50_001, 50_001, len(entries))
    start = struct.pack("<L", at)
    return data[:at] + entries + data[-22:-14] + counts + start + data[-2:]


ARCHIVES = {
    "slip": (archive(("../evil", b"")), "unsafe_archive"),
    "symbolic link": (archive(link_member()), "unsafe_archive"),
    "bomb of 80 megabytes": (archive(("bomb", bytes(80 * 2**20))), "unsafe_archive"),
    "fifty thousand members": (archive(("a", b""), change=fifty_thousand), "unsafe_archive"),
    "member that is larger than it says": (
        archive(("large", bytes(20 * 2**20)), change=of_a_thousand_bytes, of_series=False),
        "unreadable",
    ),
    "damaged member": (archive(change=changed_pixel), "unreadable"),
    "encrypted": (archive(change=encrypted), "unreadable"),
    "cut short": (archive(change=lambda data: data[:-200]), "unreadable"),
    "no archive": (content(ZIP, b"CANARY^JOHN"), "unreadable"),
    "empty": (content(ZIP, b"PK\5\6" + bytes(18)), "empty"),
    "archive in archive": (archive(("in.zip", b"PK"), of_series=False), "unsupported_format"),
}


# --- paths that hold no scan: a search of a tree passes them over, asked for by name they are
# refused ---


def empty_folder(folder):
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    return folder


def pipe(folder):
    os.mkfifo(folder / NII)
    return folder / NII


def pair_of_files(folder):
    nib.save(nib.Nifti1Pair(head_volume().astype("int16"), np.eye(4)), folder / "CANARY_JOHN.img")
    return folder / "CANARY_JOHN.hdr"


NO_SCANS = {
    "nothing with the name of a scan": (lambda folder: folder / NII, "not_found"),
    "empty folder with a loop and a pipe": (empty_folder, "empty"),
    "pipe": (pipe, "unsupported_format"),
    "text": (content("CANARY_JOHN.txt", b"no scan"), "unsupported_format"),
    "empty file": (content("CANARY_JOHN", b""), "unreadable"),
    "header of a pair of files": (pair_of_files, "unsupported_format"),
    "link that leads nowhere": (dangling("IM0001"), "not_found"),
}

REFUSED = {
    f"{kind}, {name}": case
    for kind, cases in {"DICOM": DICOM, "NIfTI": NIFTI, "archive": ARCHIVES}.items()
    for name, case in cases.items()
}
