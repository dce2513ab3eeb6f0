"""From a scan to the standard plane of MNI152 space, and back to the scan's voxels."""

from pathology_screen.space.brain_extraction import extract_brain, find_brain, is_brain_extracted
from pathology_screen.space.plane import (
    PLANE_SHAPE,
    PLANE_Z,
    brain_in_plane,
    plane_affine,
    put_back,
    take_plane,
)
from pathology_screen.space.registration import Fit, check_fit, locate, register
from pathology_screen.space.template import SPACE, load_brain_template, template_folder
from pathology_screen.space.tissue import tissue_mask

__all__ = [
    "PLANE_SHAPE",
    "PLANE_Z",
    "SPACE",
    "Fit",
    "brain_in_plane",
    "check_fit",
    "extract_brain",
    "find_brain",
    "is_brain_extracted",
    "load_brain_template",
    "locate",
    "plane_affine",
    "put_back",
    "register",
    "take_plane",
    "template_folder",
    "tissue_mask",
]
