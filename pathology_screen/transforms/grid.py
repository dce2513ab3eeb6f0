"""The grid that the networks see."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import GaussianSmooth, InvertibleTransform, MapTransform, SpatialResample

from pathology_screen.errors import InputError
from pathology_screen.space import tissue_mask


class ResampleToGridd(MapTransform, InvertibleTransform):
    """Resample a slice to a square grid of square pixels, bilinear, zeros outside: (C, H, W) -> (C, size, size).

    The inverse resamples a result back to the pixels of the slice.

    Args:
        keys: keys of slices with an affine (3, 3) in mm, as `AxialSliced` gives. The first key places the grid for all.
        size: pixels per side.
        millimetres: side of the grid in mm, centred on the bounding box of the tissue: every brain keeps the size it
            has. None: the longer side of the slice, centred on the slice: the paper's pad to square and resize.
        antialias: where pixels grow by a factor f > 1, smooth with a Gaussian of sigma (f - 1) / 2 pixels beforehand
            (scikit-image's rule).

    Raises:
        InputError: "no_tissue" where the grid is to be centred on tissue and there is none.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: int = 128,
        millimetres: float | None = 208.0,
        antialias: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size, self.millimetres, self.antialias = size, millimetres, antialias
        self.resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=False)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        grid = None
        for key in self.key_iterator(d):
            if grid is None:
                grid = self._place(d[key])
            image = _smooth(d[key], grid) if self.antialias else d[key]
            d[key] = self.resample(image, dst_affine=grid, spatial_size=(self.size, self.size))
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.resample.inverse(d[key])
        return d

    def _place(self, image: MetaTensor) -> torch.Tensor:
        """Affine (3, 3) of the grid, in the mm of the slice."""
        pixel = np.diag(image.affine)[:2]  # mm
        shape = np.asarray(image.shape[1:])
        if self.millimetres is None:
            side = float((shape * pixel).max())
            centre = (shape - 1) / 2 * pixel
        else:
            side = self.millimetres
            centre = np.asarray(_bounding_box_centre(np.asarray(image[0]))) * pixel
        step = side / self.size
        grid = np.diag([step, step, 1.0])
        grid[:2, 2] = centre - step * (self.size - 1) / 2
        return torch.as_tensor(grid)


def _bounding_box_centre(image: np.ndarray) -> tuple[float, float]:
    tissue = tissue_mask(image)
    if not tissue.any():
        raise InputError("no_tissue", "the slice holds no positive intensity")
    rows, columns = (np.flatnonzero(tissue.any(axis=axis)) for axis in (1, 0))
    return (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2


def _smooth(image: MetaTensor, grid: torch.Tensor) -> MetaTensor:
    factors = torch.diag(grid)[:2] / torch.diag(image.affine)[:2]
    sigma = ((factors - 1) / 2).clamp(min=0).tolist()
    return GaussianSmooth(sigma)(image) if any(sigma) else image
