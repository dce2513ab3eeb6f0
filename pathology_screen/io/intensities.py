"""Intensities above the background, which becomes 0 whatever constant was added to a scan."""

import math

import numpy as np
from scipy import ndimage as ndi

from pathology_screen.errors import InputError
from pathology_screen.geometry import axial_orientation

EVEN = 0.4
"""Greatest width of the narrowest interval that holds half of the border, over the range up to the
brightest tissue, for the border to show background: air has up to 0.15, MP2RAGE noise over 0.5."""
DARKER = 0.1  # what lies below the background by this share of that range is darker than it
MOST_DARKER = 0.01  # greatest share of it among all that differs so much; z-scored in a mask: half
GAP = 0.3  # least gap between padding and all else, over their range; extracted brains: 0.17
LOW = 0.1  # greatest place of the background in the range of what is no padding
MP2RAGE = 0.5  # greatest intensity of its uniform image, and with a minus the least
MOST_SAMPLED = 2_000_000
HINT = "Give the scan with a background of 0 and brighter tissue, as the scanner wrote it"


def above_background(
    voxels: np.ndarray, affine: np.ndarray, padding: np.ndarray | None = None
) -> np.ndarray:
    """Subtract the background from voxels (I, J, K), float32, finite and not constant, so that
    later steps find background 0 and tissue above. `padding`, bool, is what the file declares so.

    The background is the lower end of the narrowest interval that holds half of the voxels at the
    lateral border of the axial slices; where most of the border is tissue, the darkest of the
    image. Padding (what was declared as such, or the least value where it lies far below all
    others) does not count, and becomes 0. The result does not depend on a constant that was added
    to all voxels, and equals the input where the background is 0. Refused are an "mp2rage", and
    "no_background" where tissue is as dark as the background and darker (z-scored inside a mask),
    or where nothing but padding surrounds it.
    """
    axis, _ = axial_orientation(affine)
    padding, declared = _padding(voxels, padding), padding
    values, border = _sample(voxels, padding), _border(voxels, axis, padding)
    airless = padding is not None and not _shows_air(values, border)
    if airless and padding is not declared and voxels.min() >= 0:
        padding, airless = None, False  # tissue that begins far above its background
        values, border = _sample(voxels, padding), _border(voxels, axis, padding)
    low, high = _narrowest_half(border) if border.size else (float(values.max()),) * 2
    brightest = _bright(values[values > low])
    even = high - low <= EVEN * (brightest - low)
    least, greatest = float(voxels.min()) / MP2RAGE, float(voxels.max()) / MP2RAGE
    mp2rage = -1.01 <= least < -0.8 and 0.6 < greatest <= 1.01
    if mp2rage and (not even or _share_darker(values, low, brightest) > MOST_DARKER):
        detail = "intensities from -0.5 to 0.5, with noise around the head"
        hint = "Give the denoised image (UNI-DEN), or another T1-weighted scan"
        raise InputError("mp2rage", detail, hint)
    if airless:
        detail = "nothing but padding surrounds the tissue, far from its intensities"
        raise InputError("no_background", detail, HINT)
    level = low if even else float(min(values.min(), border.min()))
    darker = _share_darker(values, level, brightest)
    if darker > MOST_DARKER:
        detail = f"of what differs from the border of the image, {darker:.0%} is darker"
        raise InputError("no_background", f"{detail} (z-scored or inverted?)", HINT)
    if level == 0 and padding is None and voxels.min() >= 0:
        return voxels
    raised = voxels - np.float32(level)
    np.maximum(raised, 0, out=raised)
    if padding is not None:
        raised[padding] = 0
    return raised


def _padding(voxels: np.ndarray, declared: np.ndarray | None) -> np.ndarray | None:
    """What was declared as padding, or the least value far below all others, or None."""
    padding = voxels == voxels.min() if declared is None or not declared.any() else declared
    values = _sample(voxels, padding)
    if values.size == 0 or values.min() == values.max():
        return None  # a mask
    lowest, brightest = float(np.percentile(values, 0.1)), _bright(values)
    gap = lowest - float(voxels[padding].max())
    return padding if gap > GAP * (brightest - lowest) or gap < 0 else None


def _border(voxels: np.ndarray, axis: int, padding: np.ndarray | None) -> np.ndarray:
    """The voxels at the lateral border of the axial slices, or beside padding."""
    slices = np.moveaxis(voxels, axis, 0)
    edge = np.zeros(slices.shape[1:], bool)
    edge[[0, -1], :] = edge[:, [0, -1]] = True
    if padding is None:
        return slices[:, edge].ravel()
    outside = np.moveaxis(padding, axis, 0)
    beside = ndi.binary_dilation(outside, ndi.generate_binary_structure(2, 1)[None])
    return slices[(beside | edge) & ~outside]


def _shows_air(values: np.ndarray, border: np.ndarray) -> bool:
    """Whether the border is at the low end of all values."""
    if not border.size:
        return False
    low, high = _narrowest_half(border)
    lowest, brightest = float(np.percentile(values, 0.1)), _bright(values)
    return high - low <= EVEN * (brightest - low) and low - lowest <= LOW * (brightest - lowest)


def _narrowest_half(values: np.ndarray) -> tuple[float, float]:
    """Ends of the narrowest interval that holds half of the values."""
    ordered = np.sort(values).astype(np.float64)
    half = (ordered.size + 1) // 2
    start = int(np.argmin(ordered[half - 1 :] - ordered[: ordered.size - half + 1]))
    return float(ordered[start]), float(ordered[start + half - 1])


def _share_darker(values: np.ndarray, level: float, brightest: float) -> float:
    if brightest <= level:
        return 1.0
    margin = DARKER * (brightest - level)
    darker = float(np.sum(values < level - margin))
    brighter = float(np.sum(values > level + margin))
    return darker / max(darker + brighter, 1.0)


def _sample(voxels: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
    """Some of the voxels that are no padding, evenly spread: all of a small image."""
    step = slice(None, None, math.ceil((voxels.size / MOST_SAMPLED) ** (1 / 3)))
    sampled = voxels[step, step, step].astype(np.float64)
    return sampled.ravel() if padding is None else sampled[~padding[step, step, step]]


def _bright(values: np.ndarray) -> float:
    return float(np.percentile(values, 99)) if values.size else -np.inf
