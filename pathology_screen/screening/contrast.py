"""Whether a brain looks T1-weighted, by its intensities alone."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage as ndi

from pathology_screen.errors import InputError
from pathology_screen.geometry import axial_orientation, spacing
from pathology_screen.space import tissue_mask

LEVELS_LOOKED_AT = 12
FULL = 0.7  # of the largest section
SHADING_MM = 20.0
FLUID = 0.6  # of the intensity around
CORTEX_MM = 4.0
DEEP_MM = (6.0, 20.0)
FROM_VENTRICLES_MM = 3.0
CORTEX_PERCENTILE = 75.0


def full_slices(volume: np.ndarray, affine: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield up to 12 axial slices, evenly spread over the levels where the brain covers at least
    0.7 of its largest section, each cut to the brain: the slice (H, W) and the brain's outline with
    its holes filled, bool (H, W). Volume (I, J, K), brain-extracted, and affine are as in
    `gate.brain_findings`; so is what is raised."""
    axis, _ = axial_orientation(affine)
    slices, tissue = np.moveaxis(volume, axis, 0), np.moveaxis(tissue_mask(volume), axis, 0)
    area = tissue.sum(axis=(1, 2))
    if not area.any():
        raise InputError("no_tissue", "the volume holds no positive intensity")
    levels = np.flatnonzero(area >= FULL * area.max())
    chosen = np.linspace(0, len(levels) - 1, min(len(levels), LEVELS_LOOKED_AT))
    for level in levels[np.rint(chosen).astype(int)]:  # the same ones from either end
        outline = ndi.binary_fill_holes(tissue[level])
        box = ndi.find_objects(outline.astype(np.uint8))[0]
        yield slices[level][box].astype(np.float32), outline[box]


def white_to_cortex(volume: np.ndarray, affine: np.ndarray) -> float:
    """How much brighter deep white matter is than the cortex: above 1 in adults' T1w scans.

    Fluid is what is darker than 0.6 of its surroundings. The cortex is what lies up to 4 mm from
    the outside and the fluid that is joined to it; deep white matter, what lies 6 to 20 mm from
    there and more than 3 mm from any fluid. The median of the latter is divided by the upper
    quartile of the former, which partial volume with fluid hardly touches. Both are taken from
    intensities divided by their mean over about 4 cm, so that shading by the coils cancels. NaN
    where the sections are too small to have a depth of 6 mm. Arguments and errors are those of
    `gate.brain_findings`.
    """
    axis, _ = axial_orientation(affine)
    pixel = np.delete(spacing(affine), axis)
    cortex, deep = [], []
    for image, outline in full_slices(volume, affine):
        brain = outline & (image > FLUID * _shading(image, outline, pixel))
        relative = image / _shading(image, brain, pixel)
        brain = outline & (relative > FLUID)
        pieces, _ = ndi.label(np.pad(~brain, 1, constant_values=True))
        depth = _distance(pieces != pieces[0, 0], pixel)
        cortex.append(relative[brain & (depth <= CORTEX_MM)])
        far = _distance(np.pad(brain, 1), pixel) > FROM_VENTRICLES_MM
        deep.append(relative[far & (depth > DEEP_MM[0]) & (depth < DEEP_MM[1])])
    inner, outer = np.concatenate(deep), np.concatenate(cortex)
    if not (inner.size and outer.size):
        return np.nan
    return float(np.median(inner) / np.percentile(outer, CORTEX_PERCENTILE))


def _shading(image: np.ndarray, brain: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Mean of the brain around each pixel, weighted by a Gaussian."""
    signal, share = (
        ndi.gaussian_filter(part, SHADING_MM / pixel, truncate=3)
        for part in (image * brain, brain.astype(np.float32))
    )
    return signal / np.maximum(share, 1e-6) + 1e-6


def _distance(padded: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Distance in mm to the nearest False pixel of a mask with a margin of one, without it."""
    return ndi.distance_transform_edt(padded, sampling=pixel)[1:-1, 1:-1]
