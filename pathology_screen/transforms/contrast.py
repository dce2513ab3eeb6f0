"""One contrast for the slices of all scanners."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage as ndi

from pathology_screen.errors import InputError
from pathology_screen.space import PLANE_Z, load_brain_template, take_plane


class StandardContrastd(MapTransform):
    """Raise a slice to the power that gives the brain in it a wanted median.

    A percentile of the brain sets white matter; how dark grey matter is beside it is another
    property of the scanner and its sequence, and no finding. The brain is where the template's
    brain lies, so that a slice without a mask of its own is treated alike.

    Args:
        keys: keys of slices (1, H, W), float in [0, 1], that show the whole plane.
        median: of the intensities inside the brain, between 0 and 1; None changes nothing.
        z_mm: level of the plane.

    Raises:
        InputError: "no_tissue" where the median of the brain is 0 or 1: there is no contrast.
    """

    def __init__(
        self,
        keys: KeysCollection,
        median: float | None = None,
        z_mm: float = PLANE_Z,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.median, self.z_mm = median, z_mm

    def __call__(self, data: Mapping) -> dict:
        d = dict(data)
        for key in self.key_iterator(d) if self.median is not None else ():
            z_mm = float(d.get("z_mm", self.z_mm))
            median = float(
                np.median(np.asarray(d[key][0])[brain_in_plane(z_mm, tuple(d[key].shape[1:]))])
            )
            if not 0 < median < 1:
                raise InputError(
                    "no_tissue", f"the median of the brain is {median:g} of its 98th percentile"
                )
            d[key] = d[key] ** (np.log(self.median) / np.log(median))
        return d


@cache
def brain_in_plane(z_mm: float, shape: tuple[int, int]) -> np.ndarray:
    """Where the template's brain lies in an axial plane, shown on pixels of that shape: bool."""
    template = load_brain_template()
    brain = take_plane(np.asarray(template.dataobj) > 0, template.affine, np.eye(4), z_mm) > 0.5
    filled = ndi.binary_fill_holes(brain)
    return ndi.zoom(filled, np.divide(shape, filled.shape), order=0, mode="nearest", grid_mode=True)
