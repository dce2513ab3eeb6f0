"""Tissue and brain of a scan, and whether it shows a whole head."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import scipy.ndimage as ndi
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from skimage.measure import label

from pathology_screen.errors import InputError
from pathology_screen.geometry import axial_orientation, spacing

if TYPE_CHECKING:
    from deepbet.bet import BrainExtraction

BACKGROUND_FRACTION = 0.1
SHELL = 2.0  # mm
SKULL_DROP = 0.7
LARGEST_SECTION = 250.0  # cm2
LEVELS_LOOKED_AT = 12

SMALLEST_EXTENT = 100.0
"""mm; a volume thinner than this along any axis does not show a whole brain."""
PLAUSIBLE_VOLUME = (500.0, 2500.0)
"""ml; brain and fluid inside the dura, from a small child to far beyond the largest adult."""

_one_at_a_time = Lock()  # deepbet keeps state between the steps of a run


def tissue_mask(image: np.ndarray) -> np.ndarray:
    """Tell tissue from background by intensity.

    Tissue is what exceeds a tenth of the 99th percentile of the positive intensities. Air in a
    magnitude image lies below that (2 to 5 % of the brightest tissue), all but the darkest fluid
    above it, and in a brain-extracted image, whose background is zero, the rule keeps the brain. It
    does not depend on the unit of intensity, and hardly on how much background surrounds the head.

    Args:
        image: intensities of any shape; negative values are background.

    Returns:
        bool, same shape; all False where no intensity is positive.
    """
    positive = image[image > 0]
    if positive.size == 0:
        return np.zeros(image.shape, bool)
    return image > BACKGROUND_FRACTION * np.percentile(positive, 99)


def is_brain_extracted(volume: np.ndarray, affine: np.ndarray) -> bool:
    """Tell a brain-extracted volume, or slab, from a whole head by the absence of a skull.

    Inwards from the outline of a whole head, bright scalp is followed by dark bone; from that of an
    extracted brain the intensity only rises. In shells of 2 mm around each of up to 12 axial
    levels, the median at 4 to 20 mm depth is compared with the brightest median further out, and
    the smallest ratio is kept. The scan is brain-extracted where the lower quartile of that ratio
    over the levels exceeds 0.7 and no level shows more than 250 cm2 (a field of view full of
    noise). The value of the background plays no part.

    Measured: 0.88 to 1.0 on OASIS, glioma, MNI152 and deepbet-extracted brains (sections up to 215
    cm2), 0.13 to 0.58 on whole heads of three scanners, also with noise, bias field, blur, ringing,
    pixels of 0.5 to 2.5 mm, slices of 5 mm, and in slabs of 25 mm that show the brain. A slab of
    face or neck alone is not told from a brain (0.6 to 0.9).

    Args:
        volume: (I, J, K) intensities of a T1-weighted scan, any orientation.
        affine: (4, 4), RAS+ mm.
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
    """Smallest ratio of the median of a shell, 4 to 20 mm inside the outline, to the brightest
    median outside it."""
    depth = ndi.distance_transform_edt(np.pad(outline, 1), sampling=pixel)[1:-1, 1:-1]
    shells = np.ceil(depth / SHELL).astype(int)  # shell 0 is outside
    insides = [image[shells == shell] for shell in range(1, 11)]
    medians = np.array([np.median(inside) for inside in insides if inside.size])
    ratios = medians[2:] / np.maximum.accumulate(medians)[1:-1]
    return float(ratios.min(initial=1.0))


def extract_brain(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Find the brain in a whole-head volume with deepbet (Fisch et al. 2024).

    Args:
        volume: (I, J, K) intensities of a T1-weighted head, any orientation.
        affine: (4, 4), RAS+ mm.

    Returns:
        bool (I, J, K): brain and the fluid around and inside it.

    Raises:
        InputError: "brain_extraction_failed" where the volume is too thin to show a whole brain, or
            what was found is no brain's size.
    """
    extent = spacing(affine) * volume.shape
    if extent.min() < SMALLEST_EXTENT:
        detail = f"the volume is {extent.min():.0f} mm thin; "
        detail += f"at least {SMALLEST_EXTENT:.0f} mm are needed"
        hint = "Give a brain-extracted scan, or one that covers the whole head."
        raise InputError("brain_extraction_failed", detail, hint)
    scan = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(volume, np.float32), affine))
    try:
        with _one_at_a_time:
            _, found, _ = _deepbet().run(scan)
    except (AssertionError, ValueError) as error:  # deepbet's ways to say that it saw no foreground
        raise InputError("brain_extraction_failed", "nothing that looks like a brain") from error
    canonical = np.asarray(found.dataobj) > 0
    to_stored = ornt_transform(io_orientation(scan.affine), io_orientation(affine))
    mask = apply_orientation(canonical, to_stored).astype(bool)
    millilitres = mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    low, high = PLAUSIBLE_VOLUME
    if not low <= millilitres <= high:
        detail = f"{millilitres:.0f} ml is not the size of a brain"
        raise InputError("brain_extraction_failed", detail)
    return mask


@cache
def _deepbet() -> BrainExtraction:
    from deepbet.bet import BrainExtraction

    return BrainExtraction(no_gpu=True)


def find_brain(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, bool]:
    """Find the brain in a scan: by `extract_brain`, or where that was done before, its tissue
    without holes.

    Args:
        volume: (I, J, K) intensities of a T1-weighted scan, any orientation.
        affine: (4, 4), RAS+ mm.

    Returns:
        bool (I, J, K), the brain; and whether the scan came brain-extracted.

    Raises:
        InputError: "brain_extraction_failed".
    """
    if is_brain_extracted(volume, affine):
        return ndi.binary_fill_holes(tissue_mask(volume)), True
    return extract_brain(volume, affine), False
