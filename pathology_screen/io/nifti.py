"""A NIfTI file (.nii, .nii.gz) as one volume, or a refusal."""

import gzip
import io
import math
from contextlib import suppress
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from pathology_screen.errors import InputError
from pathology_screen.geometry import spacing
from pathology_screen.io.file import File, check_ratio, opened
from pathology_screen.io.intensities import above_background
from pathology_screen.io.scan import Scan, check_affine, check_place, check_shape, check_voxels

HEADER_BYTES = 540  # size of a NIfTI-2 header; that of NIfTI-1 is 348
MAX_DATA_OFFSET = 64 * 2**20  # most bytes before the first voxel: the header and its extensions
MAX_TRAILING_BYTES = 2**20  # most bytes that a compressed file may hold after its last voxel
MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}
SAME_SIZE = 0.01  # greatest relative difference of voxel sizes between sform, qform and pixdim
SAME_DIRECTION_DEG = 1.0  # greatest angle between sform and qform that is none
MAX_TURN_DEG = 45.0  # greatest angle between forms of two spaces; beyond, other axes are axial
POINTERS = {
    b"version https://git-lfs": "a pointer of Git LFS",
    b"/annex/objects/": "a pointer of git-annex",
}
"""How small files begin that stand for a scan which was not fetched."""


def read_nifti(file: File, *, axial_slice: bool = False) -> Scan:
    """Read a NIfTI-1 or NIfTI-2 file (.nii or .nii.gz, told apart by content); options and errors
    are those of `io.read_scan`.

    The affine is the sform where its code is set, else the qform; a file that sets neither is
    refused, and one that sets both to contradict each other. Trailing axes of one voxel are
    dropped: (I, J, K, 1) is a volume. A two-dimensional image is one slice, (I, J) -> (I, J, 1).
    Intensities are above the background. A compressed file is always unpacked to its end, so that
    its checksum is verified.
    """
    with opened(file) as stored, np.errstate(over="ignore"):  # check_voxels finds overflow
        stream, image_class, header = _read_header(stored)
        shape, declared = _volume_shape(header), _declared_bytes(header)
        affine, facts = _affine(header)
        slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
        # a slope of 0 (by the standard) or NaN (by custom) means no scaling
        if np.isinf(slope) or (np.isfinite(slope) and slope != 0 and not np.isfinite(intercept)):
            raise InputError("bad_rescale", "scl_slope or scl_inter is not finite")
        obliquity = check_place(shape, affine, axial_slice)
        length = stream.seek(0, io.SEEK_END)
        if length < declared:  # before as much is allocated
            detail = f"it has {length} bytes, and its header declares {declared}"
            raise InputError("unreadable", detail)
        stream.seek(0)
        data = image_class.from_stream(cast(io.IOBase, stream)).dataobj
        scaled = data[...]  # by scl_slope and scl_inter
        voxels = np.asarray(scaled, dtype=np.float32).reshape(shape, order="A")
    del stream, data, scaled  # as large as the scan each
    check_voxels(voxels)
    voxels = above_background(voxels, affine)
    source = {"format": "nifti", "file_count": 1, **facts, "obliquity_deg": obliquity}
    return Scan(voxels, affine, source)


def _read_header(stored: BinaryIO) -> tuple[BinaryIO, type[nib.Nifti1Image], nib.Nifti1Header]:
    """The stream, or what a gzip file holds, unpacked to memory up to the size that it declares;
    the nibabel class that reads it; and its header."""
    packed = stored.seek(0, io.SEEK_END)
    stored.seek(0)
    if stored.read(2) != b"\x1f\x8b":
        stored.seek(0)
        return stored, *_parsed(stored.read(HEADER_BYTES))
    stored.seek(0)
    with gzip.GzipFile(fileobj=stored) as unzipped:
        image_class, header = _parsed(unzipped.read(HEADER_BYTES))
        _volume_shape(header)
        declared = _declared_bytes(header)
        check_ratio(declared, packed)
        unzipped.rewind()
        data = unzipped.read(declared + MAX_TRAILING_BYTES + 1)
    if len(data) > declared + MAX_TRAILING_BYTES:
        raise InputError("unreadable", "the file unpacks to more than its header declares")
    return io.BytesIO(data), image_class, header


def _parsed(raw: bytes) -> tuple[type[nib.Nifti1Image], nib.Nifti1Header]:
    """The first bytes as a header, without its extensions, and the nibabel class that has such."""
    if raw[344:348] == b"n+1\0":
        image_class, size = nib.Nifti1Image, 348
    elif raw[4:8] == b"n+2\0":
        image_class, size = nib.Nifti2Image, 540
    else:
        detail, hint = "it has no NIfTI magic string", "A pair of .hdr and .img is not read"
        for start, kind in POINTERS.items():
            if raw.startswith(start):
                detail, hint = f"it is {kind}, not the scan", "Fetch the scan itself first"
        raise InputError("unsupported_format", detail, hint)
    if size not in (int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big")):
        raise InputError("unreadable", "the header does not state its own size")  # or is repaired
    header = image_class.header_class(raw[:size])
    if not 0 < header.get_data_offset() <= MAX_DATA_OFFSET:
        raise InputError("unreadable", "the header places the voxels outside the file")
    return image_class, header


def _declared_bytes(header: nib.Nifti1Header) -> int:
    voxels = math.prod(map(int, header.get_data_shape()))
    return header.get_data_offset() + header.get_data_dtype().itemsize * voxels


def _volume_shape(header: nib.Nifti1Header) -> tuple[int, int, int]:
    """Shape of the one grey volume that the header declares, or a refusal."""
    stored = tuple(int(extent) for extent in header.get_data_shape())
    if header.get_data_dtype().kind not in "uif":
        raise InputError("not_monochrome", f"the voxels are {header.get_value_label('datatype')}")
    if len(stored) < 2 or any(extent != 1 for extent in stored[3:]):
        detail = f"its shape is {' x '.join(map(str, stored))}"
        raise InputError("not_3d", detail, "Pass one volume of it")
    i, j, k = (*stored, 1)[:3]
    if min(i, j, k) < 1:
        raise InputError("unreadable", "the header declares an image without voxels")
    check_shape((i, j, k))
    return i, j, k


# --- where it lies ---


def _affine(header: nib.Nifti1Header) -> tuple[np.ndarray, dict[str, Any]]:
    """Affine in mm, and the entries of `Scan.source` about it: `other_orientation` where a qform
    beside the sform leads to another space, or nowhere."""
    if header["sform_code"] > 0:
        affine = _form(header, "sform")
        other = _beside_sform(header, affine)
        return affine, {"affine_source": "sform"} | ({"other_orientation": other} if other else {})
    if header["qform_code"] > 0:
        return _form(header, "qform"), {"affine_source": "qform"}
    hint = "Write the right one with nibabel's image.set_sform(affine, code=1)"
    raise InputError("missing_geometry", "neither sform nor qform is set", hint)


def _form(header: nib.Nifti1Header, form: str) -> np.ndarray:
    try:
        affine = header.get_sform() if form == "sform" else header.get_qform()
    except (ValueError, HeaderDataError):
        raise InputError("missing_geometry", "the qform is not valid") from None
    affine[:3] *= MILLIMETRES[header.get_xyzt_units()[0]]
    return affine


def _beside_sform(header: nib.Nifti1Header, sform: np.ndarray) -> str:
    """What a qform says beside the sform, if anything else; refuse a file whose qform, or voxel
    size, contradicts its sform."""
    qform = None
    if header["qform_code"] > 0:
        with suppress(InputError):
            usable = _form(header, "qform")
            check_affine(usable)
            qform = usable
    try:
        check_affine(sform)
    except InputError as error:
        if qform is None:
            raise
        hint = "The qform is usable: if it is right, drop the sform with nibabel's "
        hint += "image.set_sform(None, code=0)"
        raise InputError(error.code, f"of the sform, {error.detail}", hint) from None
    axes = min(len(header.get_data_shape()), 3)
    pixdim = np.abs(header["pixdim"][1 : 1 + axes]) * MILLIMETRES[header.get_xyzt_units()[0]]
    sizes, stated = spacing(sform)[:axes], np.all(np.isfinite(pixdim) & (pixdim > 0))
    if stated and not np.allclose(pixdim, sizes, rtol=SAME_SIZE):
        other, own = (" x ".join(f"{size:.4g}" for size in part) for part in (pixdim, sizes))
        raise _contradictory(f"voxels of {own} mm by the sform, of {other} mm by pixdim")
    if header["qform_code"] <= 0:
        return ""
    if qform is None:
        return "the qform is not usable"
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        raise _contradictory("sform and qform exchange the sides")
    turn = (sform[:3, :3] / spacing(sform)).T @ (qform[:3, :3] / spacing(qform))
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    if degrees <= SAME_DIRECTION_DEG:
        return ""
    if header["sform_code"] == header["qform_code"] or degrees > MAX_TURN_DEG:
        raise _contradictory(f"{degrees:.1f} degrees between sform and qform")
    return f"the qform is turned by {degrees:.1f} degrees"


def _contradictory(detail: str) -> InputError:
    hint = "Set the right one as both, with nibabel's image.set_sform(affine, code=1) and "
    return InputError("contradictory_geometry", detail, f"{hint}image.set_qform(affine, code=1)")
