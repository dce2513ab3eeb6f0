"""MONAI transforms from a scan to the network grid and back, and the augmentation of training batches."""

from pathology_screen.space import tissue_mask
from pathology_screen.transforms.augmentation import RandomAffineBatch
from pathology_screen.transforms.axial_slice import AxialSliced, tissue_extent
from pathology_screen.transforms.brain_extraction import ExtractBraind
from pathology_screen.transforms.factories import eval_transforms, train_transforms
from pathology_screen.transforms.grid import ResampleToGridd
from pathology_screen.transforms.levels import (
    READ_BY_LOADER,
    axial_slices,
    each_level,
    pixel_affine,
    slice_step,
    slices_to_volume,
)
from pathology_screen.transforms.load import LoadScand, ScanReader, scan_image
from pathology_screen.transforms.standard_plane import StandardPlaned
from pathology_screen.transforms.tissue import ScaleByTissuePercentiled

__all__ = [
    "READ_BY_LOADER",
    "AxialSliced",
    "ExtractBraind",
    "LoadScand",
    "RandomAffineBatch",
    "ResampleToGridd",
    "ScaleByTissuePercentiled",
    "ScanReader",
    "StandardPlaned",
    "axial_slices",
    "each_level",
    "eval_transforms",
    "pixel_affine",
    "scan_image",
    "slice_step",
    "slices_to_volume",
    "tissue_extent",
    "tissue_mask",
    "train_transforms",
]
