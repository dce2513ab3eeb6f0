"""MONAI transforms from a scan to its slice and back, and augmentation of batches."""

from pathology_screen.transforms.augmentation import RandomAffineBatch
from pathology_screen.transforms.intensity import (
    BlackenBackgroundd,
    ScaleByTissuePercentiled,
    StandardContrastd,
)
from pathology_screen.transforms.load import READ_BY_READER, LoadScand, prepare_slices, scan_image
from pathology_screen.transforms.standard_plane import (
    ExtractBraind,
    StandardPlaned,
    shown_pixels,
    slice_affines,
    slice_to_scan,
)

__all__ = [
    "READ_BY_READER",
    "BlackenBackgroundd",
    "ExtractBraind",
    "LoadScand",
    "RandomAffineBatch",
    "ScaleByTissuePercentiled",
    "StandardContrastd",
    "StandardPlaned",
    "prepare_slices",
    "scan_image",
    "shown_pixels",
    "slice_affines",
    "slice_to_scan",
]
