"""From a scan to the standard plane of MNI152 space, and back to the scan's voxels."""

from pathology_screen.space.brain_extraction import extract_brain, find_brain, is_brain_extracted
from pathology_screen.space.plane import PLANE_SHAPE, PLANE_Z, plane_affine, put_back, take_plane
from pathology_screen.space.registration import Fit, check_fit, register
from pathology_screen.space.template import SPACE, load_brain_template, template_folder
from pathology_screen.space.tissue import tissue_mask

__all__ = [
    "PLANE_SHAPE",
    "PLANE_Z",
    "SPACE",
    "Fit",
    "check_fit",
    "extract_brain",
    "find_brain",
    "is_brain_extracted",
    "load_brain_template",
    "plane_affine",
    "put_back",
    "register",
    "take_plane",
    "template_folder",
    "tissue_mask",
]
