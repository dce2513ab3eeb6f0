"""From a scan to the standard plane of MNI152 space, and back to the scan's voxels."""

from pathology_screen.space.brain import (
    EXTRACTION_GRID,
    extract_brain,
    find_brain,
    is_brain_extracted,
    tissue_mask,
)
from pathology_screen.space.plane import (
    PLANE_SHAPE,
    PLANE_Z,
    brain_in_plane,
    plane_affine,
    put_back,
    take_plane,
)
from pathology_screen.space.registration import Fit, check_fit, register
from pathology_screen.space.template import (
    SPACE,
    TISSUES,
    load_brain_template,
    load_tissue,
    template_folder,
)

__all__ = ["EXTRACTION_GRID", "extract_brain", "find_brain", "is_brain_extracted", "tissue_mask"]
__all__ += ["PLANE_SHAPE", "PLANE_Z", "brain_in_plane", "plane_affine", "put_back", "take_plane"]
__all__ += ["Fit", "check_fit", "register"]
__all__ += ["SPACE", "TISSUES", "load_brain_template", "load_tissue", "template_folder"]
