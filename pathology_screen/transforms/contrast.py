"""One contrast for the slices of all scanners."""

from collections.abc import Mapping

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from pathology_screen.errors import InputError
from pathology_screen.space import PLANE_Z, brain_in_plane


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
        if self.median is None:
            return d
        for key in self.key_iterator(d):
            brain = brain_in_plane(tuple(d[key].shape[1:]), float(d.get("z_mm", self.z_mm)))
            median = float(np.median(np.asarray(d[key][0])[brain]))
            if not 0 < median < 1:
                detail = f"the median of the brain is {median:g} of its 98th percentile"
                raise InputError("no_tissue", detail)
            d[key] = d[key] ** (np.log(self.median) / np.log(median))
        return d
