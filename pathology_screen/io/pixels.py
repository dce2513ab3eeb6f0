"""The pixels of DICOM frames, from what is stored to real-world values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_modality_lut, get_decoder

from pathology_screen.io.decoding import decode_frames


def stored_frames(dataset: Dataset, indices: Sequence[int]) -> np.ndarray:
    """Stored values of some frames of an image of one grey value a pixel, (len(indices), rows,
    columns).

    Raises:
        InputError: see `decode_frames`; pydicom raises errors of many kinds where uncompressed
            pixels are damaged.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        decoder = get_decoder(syntax)
        return np.stack([decoder.as_array(dataset, index=index)[0] for index in indices])
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    keywords = {
        **{"rows": "Rows", "columns": "Columns", "samples_per_pixel": "SamplesPerPixel"},
        **{"bits_allocated": "BitsAllocated", "bits_stored": "BitsStored"},
        "pixel_representation": "PixelRepresentation",
    }
    options = {name: int(dataset[keyword].value) for name, keyword in keywords.items()}
    text = {
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }  # inverted later
    return decode_frames([frames[index] for index in indices], syntax, options | text)


def padded(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Which stored values are PixelPaddingValue, or between it and PixelPaddingRangeLimit: bool,
    the same shape."""
    integer = stored.dtype.kind in "iu"
    name = (
        "Pixel" if integer else "FloatPixel" if stored.dtype.itemsize == 4 else "DoubleFloatPixel"
    )
    value, limit = dataset.get(f"{name}PaddingValue"), dataset.get(f"{name}PaddingRangeLimit")
    if value is None or value == "":
        return np.zeros(stored.shape, bool)
    ends = np.array([value, value if limit in (None, "") else limit])
    ends = ends.astype(np.int64 if integer else np.float64).astype(
        stored.dtype
    )  # -2000 as unsigned is 63536
    return (stored >= ends.min()) & (stored <= ends.max())


def real_world(stored: np.ndarray, dataset: Dataset, slope: float, intercept: float) -> np.ndarray:
    """Real-world values of one frame, float32: MONOCHROME1 is inverted within the range of the
    stored bits, then the modality LUT or slope and intercept apply."""
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        stored = _inverted(stored, int(dataset.BitsStored))
    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, dataset).astype(np.float32)
    return (stored * np.float64(slope) + intercept).astype(np.float32)


def _inverted(stored: np.ndarray, bits: int) -> np.ndarray:
    if stored.dtype.kind == "f":
        return -stored
    return -1 - stored if stored.dtype.kind == "i" else stored.dtype.type(2**bits - 1) - stored
