"""A DICOM series as one volume, or a refusal; pixels by pydicom, geometry by highdicom."""

import math
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from io import SEEK_END, BytesIO

import highdicom
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut, get_decoder
from pydicom.pixels.common import PhotometricInterpretation

from pathology_screen.errors import InputError
from pathology_screen.io.acquisition import acquisition_facts
from pathology_screen.io.decoder_process import plugin_of
from pathology_screen.io.decoding import stored_frames
from pathology_screen.io.file import File, one_of, opened, parsing
from pathology_screen.io.headers import (
    PIXEL_DATA,
    DicomImage,
    Frame,
    check_even,
    check_parallel,
    choose_series,
    frame_values,
    gap_tolerance,
    image_frames,
    number,
    numbers,
    raw,
    read_headers,
    slice_thickness,
)
from pathology_screen.io.intensities import above_background
from pathology_screen.io.scan import Scan, check_place, check_shape, check_voxels

MAX_SLICE_BYTES = 2**26
"""Most bytes of a DICOM file that holds one slice."""
SPACING_TOLERANCE = 1e-4  # greatest relative difference between pixel spacings


def read_dicom(
    files: Sequence[File], *, series_uid: str | None = None, axial_slice: bool = False
) -> Scan:
    """Read one DICOM series, in which every slice is an object of its own, or one enhanced
    multi-frame object, placed by `stack_frames`; raises an InputError.

    Voxels are rescaled (or go through the modality LUT); MONOCHROME1 is inverted within the range
    of the stored bits; PixelPaddingValue counts as background. Files that are not DICOM images are
    passed over and counted in `source`.
    """
    found = read_headers(files, series_uid)
    images = choose_series(found, series_uid)
    first = images[0]
    if not raw(first.header, "SeriesInstanceUID"):
        raise InputError("unreadable", "SeriesInstanceUID is absent")
    with parsing():
        frames = image_frames(images)
        _check_pixels(images, frames)
        geometry, order = stack_frames(images, frames)
    affine, shape = geometry.get_affine("RAS"), geometry.spatial_shape
    obliquity = check_place(shape, affine, axial_slice)
    voxels, padding = _decode(images, frames, order, files)
    check_voxels(voxels)
    if first.text("Modality") in ("", "MR"):
        voxels = above_background(voxels, affine, padding)
    source = {
        "format": "dicom",
        "series_uid": first.text("SeriesInstanceUID"),
        "transfer_syntax": str(first.transfer_syntax),
        "file_count": len(images),
        "ignored_file_count": len(files) - len(found),
        "obliquity_deg": obliquity,
    }
    with parsing():
        source |= acquisition_facts([first.header, *frames[order[0]]])
    patient = raw(first.header, "PatientID").strip()
    return Scan(voxels, affine, source, sha256(patient).hexdigest() if patient else None)


def _check_pixels(images: list[DicomImage], frames: list[Frame]) -> None:
    """Refuse what cannot be decoded to one grey value a pixel."""
    photometric = {image.text("PhotometricInterpretation") for image in images}
    if not photometric <= {"MONOCHROME1", "MONOCHROME2"}:
        defined = ", ".join(sorted(photometric & set(PhotometricInterpretation)))
        raise InputError("not_monochrome", defined or "absent, or not one that DICOM defines")
    for syntax in {image.transfer_syntax for image in images}:
        decodable = not syntax.is_encapsulated
        with suppress(NotImplementedError):
            decodable = decodable or plugin_of(syntax) in get_decoder(syntax).available_plugins
        if not decodable:
            hint = "pip install pathology-screen[dicom]"
            raise InputError("unsupported_compression", syntax.name, hint)
    for frame in frames:
        slope, intercept = numbers(frame, "RescaleSlope"), numbers(frame, "RescaleIntercept")
        if not all(map(math.isfinite, slope + intercept)) or 0 in slope:
            raise InputError("bad_rescale")


def stack_frames(
    images: list[DicomImage], frames: list[Frame]
) -> tuple[highdicom.VolumeGeometry, list[int]]:
    """Place the frames in space, ordered along their normal: the volume's geometry, axes (column,
    row, slice), and each slice's index in `frames`. A slice which is the only one has the extent
    SliceThickness, or 1 mm.

    Slices must share one size and frame of reference ("mixed_size", "mixed_frame_of_reference"), be
    perpendicular to the line through their positions to 2.5 degrees (highdicom's tolerance;
    "not_a_stack"), and pass `check_parallel`, `check_even` and `check_shape`.
    """
    positions = frame_values(frames, "ImagePositionPatient", 3)
    orientations = frame_values(frames, "ImageOrientationPatient", 6)
    spacings = frame_values(frames, "PixelSpacing", 2)
    check_parallel(orientations)
    spaces = {image.text("FrameOfReferenceUID") for image in images}
    if "" in spaces or spacings.min() <= 0:
        detail = "FrameOfReferenceUID is absent or PixelSpacing is not positive"
        raise InputError("missing_geometry", detail)
    if len(spaces) > 1:
        raise InputError("mixed_frame_of_reference", f"{len(spaces)} frames of reference")
    headers = [image.header for image in images]
    distinct = {raw(header, "Rows") + raw(header, "Columns"): header for header in headers}
    sizes = {(header.Rows, header.Columns) for header in distinct.values()}
    if len(sizes) > 1:
        listed = ", ".join(f"{rows} x {columns}" for rows, columns in sorted(sizes))
        raise InputError("mixed_size", listed)
    rows, columns = sizes.pop()
    check_shape((columns, rows, len(frames)))
    if np.any(np.ptp(spacings, axis=0) > SPACING_TOLERANCE * spacings.min()):
        ends = zip(spacings.min(axis=0), spacings.max(axis=0))
        detail = " and ".join(f"{least:.6g} to {most:.6g} mm" for least, most in ends)
        raise InputError("mixed_size", detail)
    # without what rounding left of skew, which highdicom would refuse
    row, column = orientations[0].reshape(2, 3)
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    cosines = np.concatenate([row, column / np.linalg.norm(column)])
    extent = np.ptp(positions @ np.cross(cosines[:3], cosines[3:]))  # mm
    tolerance = gap_tolerance(extent / max(len(positions) - 1, 1))
    step, places = highdicom.spatial.get_volume_positions(
        positions.tolist(), cosines.tolist(), atol=tolerance
    )
    if step is None or places is None:
        check_even(positions, cosines)
        raise InputError("not_a_stack", hint="Resample a volume with tilted gantry first")
    thickness = slice_thickness(images[0], frames[0]) or 1.0
    order = np.argsort(places).tolist()  # highdicom counts against the normal
    geometry = highdicom.VolumeGeometry.from_attributes(
        image_position=positions[order[0]],
        image_orientation=cosines.tolist(),
        pixel_spacing=spacings[0],
        spacing_between_slices=step if len(order) > 1 else thickness,
        rows=rows,
        columns=columns,
        number_of_frames=len(order),
        coordinate_system="PATIENT",
    )
    return geometry.flip_spatial(0).permute_spatial_axes((2, 1, 0)), order[::-1]


def _decode(
    images: list[DicomImage], frames: list[Frame], order: Sequence[int], files: Sequence[File]
) -> tuple[np.ndarray, np.ndarray]:
    """Values of the frames in an order, float32, and what of them is padding: (I, J, K)."""
    one_object = len(images) == 1
    parts = [(images[0], order)] if one_object else [(images[i], [i]) for i in order]
    values, padding = [], []
    for image, places in parts:
        with one_of(image.file, files), parsing():
            dataset = _read_dataset(image)
            stored = stored_frames(dataset, places if one_object else [0])
            padding.append(_padded(stored, dataset))
            values += [_real_world(one, dataset, frames[i]) for one, i in zip(stored, places)]
    return np.stack(values).transpose(2, 1, 0), np.concatenate(padding).transpose(2, 1, 0)


def _read_dataset(image: DicomImage) -> Dataset:
    with opened(image.file) as stream:
        if stream.seek(0, SEEK_END) > MAX_SLICE_BYTES and not image.is_multiframe:
            detail = f"the file of one slice has more than {MAX_SLICE_BYTES} bytes"
            raise InputError("too_large", detail)
        stream.seek(0)
        dataset = dcmread(BytesIO(stream.read()))
    if not any(tag in dataset for tag in PIXEL_DATA):
        # nothing is read of a file that ends in compressed pixels
        raise InputError("no_image" if "Rows" in dataset else "unreadable")
    return dataset


def _padded(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Which values are PixelPaddingValue, or up to PixelPaddingRangeLimit: bool, alike."""
    integer = stored.dtype.kind in "iu"
    name = "Pixel" if integer else {4: "FloatPixel", 8: "DoubleFloatPixel"}[stored.itemsize]
    value, limit = dataset.get(f"{name}PaddingValue"), dataset.get(f"{name}PaddingRangeLimit")
    if value is None or value == "":
        return np.zeros(stored.shape, bool)
    ends = np.array([value, value if limit in (None, "") else limit])
    ends = ends.astype(np.int64 if integer else np.float64)
    ends = ends.astype(stored.dtype)  # -2000 as unsigned is 63536
    return (stored >= ends.min()) & (stored <= ends.max())


def _real_world(stored: np.ndarray, dataset: Dataset, frame: Frame) -> np.ndarray:
    """Real-world values of one frame, float32: MONOCHROME1 is inverted within the range of the
    stored bits, then the modality LUT or slope and intercept apply."""
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        if stored.dtype.kind == "f":
            stored = -stored
        elif stored.dtype.kind == "i":
            stored = -1 - stored
        else:
            stored = stored.dtype.type(2 ** int(dataset.BitsStored) - 1) - stored
    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, dataset).astype(np.float32)
    slope, intercept = number(frame, "RescaleSlope", 1), number(frame, "RescaleIntercept", 0)
    return (stored * np.float64(slope) + intercept).astype(np.float32)
