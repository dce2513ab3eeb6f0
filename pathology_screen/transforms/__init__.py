"""MONAI transforms from a scan to the slice that networks see and back, and the augmentation of
training batches."""

from pathology_screen.transforms.augmentation import RandomAffineBatch
from pathology_screen.transforms.background import BlackenBackgroundd
from pathology_screen.transforms.brain_extraction import ExtractBraind
from pathology_screen.transforms.contrast import StandardContrastd
from pathology_screen.transforms.load import READ_BY_READER, LoadScand, ScanReader, scan_image
from pathology_screen.transforms.prepared import prepare_slices
from pathology_screen.transforms.standard_plane import StandardPlaned
from pathology_screen.transforms.tissue import ScaleByTissuePercentiled
from pathology_screen.transforms.way_back import slice_affines, slice_to_scan

__all__ = [
    "READ_BY_READER",
    "BlackenBackgroundd",
    "ExtractBraind",
    "LoadScand",
    "RandomAffineBatch",
    "ScaleByTissuePercentiled",
    "ScanReader",
    "StandardContrastd",
    "StandardPlaned",
    "prepare_slices",
    "scan_image",
    "slice_affines",
    "slice_to_scan",
]
