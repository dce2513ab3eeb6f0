"""Tissue and brain of a scan, and whether it shows a whole head."""

from functools import cache
from typing import Any

import numpy as np
import scipy.ndimage as ndi
import torch
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from skimage.measure import label

from pathology_screen.errors import InputError
from pathology_screen.geometry import axial_orientation, spacing

BACKGROUND_FRACTION = 0.1
SHELL = 2.0  # mm
SKULL_DROP = 0.7
LARGEST_SECTION = 250.0  # cm2
LEVELS_LOOKED_AT = 12

SMALLEST_EXTENT = 100.0
"""mm; a volume thinner than this along any axis does not show a whole brain."""
PLAUSIBLE_VOLUME = (500.0, 2500.0)
"""ml; brain and fluid inside the dura, from a small child to far beyond the largest adult."""

EXTRACTION_GRID = 192
"""Voxels a side of the grid on which deepbet tells the brain; part of a calibration's identity."""
BOX_GRID, BOX_MARGIN = 128, 0.1
"""Voxels a side of the grid on which it looks for the box around the brain, and what that adds."""
CANONICAL = np.array([[0, 1], [1, 1], [2, 1]])
"""Orientation, as of nibabel, of axes that run to right, anterior and superior."""


def tissue_mask(image: np.ndarray) -> np.ndarray:
    """Tell tissue from background: bool, shaped as the intensities; all False if none is positive.

    Tissue is what exceeds a tenth of the 99th percentile of the positive intensities. Air in a
    magnitude image lies below that (2 to 5 % of the brightest tissue), all but the darkest fluid
    above it, and in a brain-extracted image, whose background is zero, the rule keeps the brain.

    >>> tissue_mask(np.array([-1.0, 0.0, 5.0, 20.0, 100.0]))
    array([False, False, False,  True,  True])
    """
    positive = image[image > 0]
    if positive.size == 0:
        return np.zeros(image.shape, bool)
    return image > BACKGROUND_FRACTION * np.percentile(positive, 99, overwrite_input=True)


def is_brain_extracted(volume: np.ndarray, affine: np.ndarray) -> bool:
    """Tell a brain-extracted volume or slab (I, J, K), of any orientation, with its affine (4, 4),
    RAS+ mm, from a whole head by the absence of a skull.

    Inwards from the outline of a whole head, bright scalp is followed by dark bone; from that of an
    extracted brain the intensity only rises. `_inward_drop` is taken at up to 12 axial levels: the
    scan is brain-extracted where its lower quartile exceeds 0.7 and no level shows more than 250
    cm2 (a field of view full of noise). The value of the background plays no part. Measured: 0.88
    to 1.0 on extracted brains (sections up to 215 cm2), 0.13 to 0.58 on whole heads of three
    scanners and their slabs of 25 mm; face or neck alone is not told from a brain (0.6 to 0.9).

    >>> from pathology_screen.space.template import load_brain_template
    >>> template = load_brain_template()
    >>> is_brain_extracted(np.asarray(template.dataobj), template.affine)
    True
    """
    axis, _ = axial_orientation(affine)
    pixel = np.delete(spacing(affine), axis)  # mm
    slices, tissue = np.moveaxis(volume, axis, 0), np.moveaxis(tissue_mask(volume), axis, 0)
    area = tissue.sum(axis=(1, 2))
    full = np.flatnonzero(area >= area.max() / 2)
    levels = full[np.linspace(0, len(full) - 1, min(len(full), LEVELS_LOOKED_AT)).astype(int)]
    outlines = [_outline(tissue[level]) for level in levels]
    drops = [_inward_drop(slices[k], outline, pixel) for k, outline in zip(levels, outlines)]
    section = max(outline.sum() for outline in outlines) * pixel.prod() / 100
    return bool(np.percentile(drops, 25) > SKULL_DROP and section < LARGEST_SECTION)


def _outline(tissue: np.ndarray) -> np.ndarray:
    """The largest connected piece of the tissue of a slice, with its holes filled: bool (H, W)."""
    pieces = label(ndi.binary_fill_holes(tissue))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return pieces == sizes.argmax() if sizes.any() else tissue


def _inward_drop(image: np.ndarray, outline: np.ndarray, pixel: np.ndarray) -> float:
    """Smallest ratio of the median of a shell of 2 mm, 4 to 20 mm inside the outline, to the
    brightest median outside it."""
    depth = ndi.distance_transform_edt(np.pad(outline, 1), sampling=pixel)[1:-1, 1:-1]
    shells = np.ceil(depth / SHELL).astype(int)  # shell 0 is outside
    insides = [image[shells == shell] for shell in range(1, 11)]
    medians = np.array([np.median(inside) for inside in insides if inside.size])
    ratios = medians[2:] / np.maximum.accumulate(medians)[1:-1]
    return float(ratios.min(initial=1.0))


def extract_brain(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Find the brain, and the fluid around and inside it, in a whole-head volume (I, J, K) of any
    orientation, with its affine (4, 4), RAS+ mm, by deepbet (Fisch et al. 2024): bool (I, J, K).

    Raises:
        InputError: "brain_extraction_failed" where the volume is too thin to show a whole brain, or
            what was found is no brain's size.

    >>> try:
    ...     extract_brain(np.ones((50, 200, 200)), np.eye(4))
    ... except InputError as error:
    ...     print(error.code)
    brain_extraction_failed
    """
    thinnest = (spacing(affine) * volume.shape).min()
    if thinnest < SMALLEST_EXTENT:
        detail = (
            f"the volume is {thinnest:.0f} mm thin; at least {SMALLEST_EXTENT:.0f} mm are needed"
        )
        hint = "Give a brain-extracted scan, or one that covers the whole head."
        raise InputError("brain_extraction_failed", detail, hint)
    stored = io_orientation(affine)
    try:
        found = _segment(apply_orientation(volume, stored))
    except (AssertionError, ValueError) as error:  # deepbet's ways to say that it saw no foreground
        raise InputError("brain_extraction_failed", "nothing that looks like a brain") from error
    mask = np.ascontiguousarray(apply_orientation(found, ornt_transform(CANONICAL, stored)))
    millilitres = mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    low, high = PLAUSIBLE_VOLUME
    if not low <= millilitres <= high:
        detail = f"{millilitres:.0f} ml is not the size of a brain"
        raise InputError("brain_extraction_failed", detail)
    return mask


def _segment(head: np.ndarray) -> np.ndarray:
    """Find the brain in a head (I, J, K), its axes to right, anterior and superior: bool (I, J, K).

    As deepbet does, whose second network sees a box around the brain on 256 voxels a side.
    """
    from deepbet.utils import normalize

    deepbet, whole = _deepbet(), tuple(slice(0, extent) for extent in head.shape)
    coarse = _sampled(head, whole, BOX_GRID)
    low, high = coarse.quantile(0.005), coarse.quantile(0.995)

    def brain(network: torch.nn.Module, voxels: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            probability = network(normalize(voxels, low, high)[None, None])[0, 1]
        return deepbet.postprocess(probability.numpy() > 0.5)  # one piece, without holes

    found = torch.from_numpy(brain(deepbet.bbox_model, coarse)).float()
    box = deepbet.get_bbox_with_margin(found, head.shape, BOX_MARGIN)
    fine = brain(deepbet.model, _sampled(head, box, EXTRACTION_GRID))
    mask = np.zeros(head.shape, bool)
    places = (_nearest(side.stop - side.start, EXTRACTION_GRID) for side in box)
    mask[box] = fine[np.ix_(*places)]
    return mask


def _sampled(head: np.ndarray, box: tuple[slice, ...], grid: int) -> torch.Tensor:
    """The nearest voxels to a grid of so many a side that fills a box, float32."""
    nearest = (side.start + _nearest(grid, side.stop - side.start) for side in box)
    return torch.from_numpy(np.nan_to_num(head[np.ix_(*nearest)].astype(np.float32)))


def _nearest(steps: int, extent: int) -> np.ndarray:
    """(steps,): the voxels, of `extent` side by side, that the middles of equal steps fall into."""
    return ((np.arange(steps) + 0.5) * (extent / steps)).astype(int)


@cache
def _deepbet() -> Any:
    from deepbet.bet import BrainExtraction

    made = BrainExtraction(no_gpu=True)
    made.bbox = ...  # all of a mask that is given to `postprocess`
    return made


def find_brain(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, bool]:
    """Find the brain in a scan, bool (I, J, K), and whether it came extracted: then it is its
    tissue without holes, else what `extract_brain`, whose arguments and errors these are, finds.

    >>> from pathology_screen.space.template import load_brain_template
    >>> template = load_brain_template()
    >>> brain, extracted = find_brain(np.asarray(template.dataobj), template.affine)
    >>> brain.shape, extracted
    ((197, 233, 189), True)
    """
    if is_brain_extracted(volume, affine):
        return ndi.binary_fill_holes(tissue_mask(volume)), True
    return extract_brain(volume, affine), False
