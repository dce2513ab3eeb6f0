"""One synthetic person, and measures of a volume."""

import numpy as np
from scipy import ndimage as ndi

SEED = (7, 1)


def distance_mm(mask, affine):
    """Distance of every voxel from the mask, mm."""
    return ndi.distance_transform_edt(mask == 0, sampling=np.abs(np.diag(affine)[:3]))


def white_matter(volume):
    return np.percentile(volume.image[volume.brain], 95)
