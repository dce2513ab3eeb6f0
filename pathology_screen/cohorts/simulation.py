"""One synthetic axial T1w acquisition: thick slices, blur, bias field and Rician noise over a drawn brain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage as ndi

from pathology_screen.cohorts.anatomy import Anatomy, Field, Scalp, Template, brain_tissue, random_field, slow_fields
from pathology_screen.cohorts.lesions import Lesion

FIELD_OF_VIEW = (200.0, 232.0)  # mm, left-right and posterior-anterior
SLICE_SPACING = 5.0  # mm
SLICE_PROFILE = np.array([-1.1, 1.1], np.float32)  # mm; the mean of both has the spread of a slice of 4 mm
COARSE = 4  # pixels between the points where slow fields are evaluated
IN_PLANE = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))], axis=-1)  # neighbours within a slice


@dataclass(frozen=True, eq=False)
class Volume:
    """A simulated scan in RAS+ order.

    Attributes:
        image: int16, shape (I, J, K).
        mask: uint8, shape (I, J, K), 1 in the lesion.
        affine: float64, shape (4, 4), voxel index -> mm in RAS+.
    """

    image: np.ndarray
    mask: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True, eq=False)
class Scanner:
    """How one scan was taken.

    Attributes:
        pixel: mm, in-plane.
        centre: (3,) mm, where the middle of the volume lies in the scanner.
        blur: pixels, width of the in-plane point spread.
        grain, noise: relative deviation of the tissue's texture; noise of both channels, white matter being 1.
        gain: stored value of white matter.
        bias: field, logarithm of the coil's sensitivity.
    """

    pixel: float
    centre: np.ndarray
    blur: float
    grain: float
    noise: float
    gain: float
    bias: Field

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Scanner:
        """Draw the settings of a clinical scanner."""
        bias, strength = random_field(rng, 55, 16), rng.uniform(0.02, 0.08)
        return cls(
            pixel=round(rng.uniform(0.9, 1.1), 3),
            centre=rng.uniform(-6, 6, 3).round(1),
            blur=rng.uniform(0.35, 0.6),
            grain=rng.uniform(0.01, 0.025),
            noise=rng.uniform(0.01, 0.025),
            gain=rng.uniform(350, 900),
            bias=lambda points: strength * bias(points),
        )


def simulate(
    template: Template, seed: tuple[int, ...], kind: str = "healthy", *, levels: int = 11, head: bool = False
) -> Volume:
    """Draw a subject and scan it. The same seed gives the same subject, scanner and noise, whatever the kind.

    Args:
        template: see `load_template`; with a margin of `SCALP_MARGIN` where `head`.
        seed: entropy of every random draw.
        kind: "healthy" or one of `lesions.KINDS`.
        levels: number of axial slices, 5 mm apart.
        head: keep the scalp and the noise of the air; otherwise everything outside the brain is exactly 0.
    """
    streams = [np.random.default_rng([*seed, stream]) for stream in range(5)]
    anatomy, scanner, scalp = Anatomy.draw(streams[0]), Scanner.draw(streams[1]), Scalp.draw(streams[2])
    lesion = None
    if kind == "enlarged ventricles":
        anatomy = replace(anatomy, ventricle_growth=streams[3].uniform(6.5, 9.0))
    elif kind != "healthy":
        lesion = Lesion.draw(kind, streams[3], template, anatomy)

    shape = (*(round(width / scanner.pixel) for width in FIELD_OF_VIEW), levels)
    spacing = (scanner.pixel, scanner.pixel, SLICE_SPACING)
    x, y, z = ((step * (np.arange(count) - (count - 1) / 2)).astype(np.float32) for count, step in zip(shape, spacing))
    signal, share, brain = _render(template, anatomy, lesion, scalp if head else None, x, y, z)
    if kind == "healthy":
        share = np.zeros_like(share)
    signal = _acquire(signal, _mesh(x, y, z), scanner, streams[4])
    image = np.rint(scanner.gain * (signal if head else signal * brain)).astype(np.int16)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = scanner.centre - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return Volume(image.transpose(1, 2, 0), _solid((brain & (share > 0.5)).transpose(1, 2, 0)), affine)


def _render(
    template: Template,
    anatomy: Anatomy,
    lesion: Lesion | None,
    scalp: Scalp | None,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signal, share of the lesion (of the ventricles where there is none) and brain mask of thick slices; (K, H, W)."""
    thin = (z[:, None] + SLICE_PROFILE).ravel()  # S = K x 2 thin slices
    coarse = _mesh(_every(COARSE, x), _every(COARSE, y), thin)  # (3, S, h, w)
    if lesion:
        coarse = lesion.displace(coarse, room=template.surface(anatomy.to_template(coarse)))
    slow = slow_fields(template, anatomy, coarse)
    near = slow[10] > (-32 if scalp else -6)  # the pixels that are worth the work
    columns, rows = _extent(near.any((0, 2)), len(x)), _extent(near.any((0, 1)), len(y))
    slow = _upsample(_upsample(slow, 2, columns), 3, rows)  # (11, S, H, W)

    tissue = brain_tissue(template, anatomy, slow, float(x[1] - x[0]))
    share = tissue.ventricles < 0
    if lesion:
        tissue, share = lesion.paint(tissue, _mesh(x[columns], y[rows], thin), *anatomy.intensity)
    signal, brain = tissue.intensity, tissue.surface > -0.5
    if scalp:
        signal = np.where(brain, signal, scalp.intensity(tissue.surface, slow[:3], anatomy.intensity[0]))

    frame = np.zeros((3, len(z), len(x), len(y)), np.float32)
    for whole, part in zip(frame, (signal, share, brain)):
        whole[:, columns, rows] = part.reshape(len(z), -1, *part.shape[1:]).mean(1)
    return frame[0], frame[1], frame[2] > 0.5


def _acquire(signal: np.ndarray, points: np.ndarray, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Texture, point spread, coil sensitivity and Rician noise; (K, H, W)."""
    grain = ndi.gaussian_filter(rng.standard_normal(signal.shape, np.float32), (0, 1.2, 1.2))
    signal = signal * (1 + scanner.grain / grain.std() * grain)
    signal = ndi.gaussian_filter(signal, (0, scanner.blur, scanner.blur)) * np.exp(scanner.bias(points))
    real, imaginary = scanner.noise * rng.standard_normal((2, *signal.shape), np.float32)
    return np.hypot(signal + real, imaginary)


def _solid(mask: np.ndarray, smallest: int = 12) -> np.ndarray:
    """Fill the holes of a mask (I, J, K) slice by slice and drop parts of fewer than `smallest` voxels in a slice."""
    filled = ndi.binary_fill_holes(mask, IN_PLANE)
    parts, _ = ndi.label(filled, IN_PLANE)
    large = np.bincount(parts.ravel()) >= smallest
    return (filled & large[parts]).astype(np.uint8)


def _every(step: int, axis: np.ndarray) -> np.ndarray:
    """Every `step`-th position of an axis, and one beyond its end."""
    return axis[0] + (axis[1] - axis[0]) * step * np.arange(-(-len(axis) // step) + 1, dtype=np.float32)


def _mesh(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Points (3, S, H, W) in mm of planes z, columns x and rows y."""
    return np.stack(np.broadcast_arrays(x[None, :, None], y[None, None, :], z[:, None, None]))


def _extent(near: np.ndarray, count: int) -> slice:
    """Pixels of one axis between the outermost coarse points that are near the brain."""
    first, last = np.flatnonzero(near)[[0, -1]]
    return slice(first * COARSE, min(last * COARSE + 1, count))


def _upsample(coarse: np.ndarray, axis: int, pixels: slice) -> np.ndarray:
    """Linear interpolation along one axis, from coarse points to pixels."""
    node, part = np.divmod(np.arange(pixels.start, pixels.stop), COARSE)
    part = np.float32(part / COARSE).reshape(-1, *[1] * (coarse.ndim - 1 - axis))
    low, high = np.take(coarse, node, axis), np.take(coarse, node + 1, axis)
    return low + part * (high - low)
