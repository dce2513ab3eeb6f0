"""One synthetic T1w acquisition of a drawn head: blur, bias field, noise."""

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage as ndi

from pathology_screen.cohorts.anatomy import (
    Anatomy,
    Coat,
    Field,
    Template,
    brain_tissue,
    random_field,
    slow_fields,
    turn,
)
from pathology_screen.cohorts.lesions import Lesion
from pathology_screen.space import PLANE_SHAPE, PLANE_Z, plane_affine

FIELD_OF_VIEW = np.array([208.0, 244.0, 188.0])  # mm, to the right, to anterior, to superior
COARSE = 4  # pixels between the points where slow fields are evaluated
IN_PLANE = np.zeros((3, 3, 3), bool)  # neighbours within a slice
IN_PLANE[..., 1] = True


class Volume(NamedTuple):
    """A simulated scan in RAS+ order."""

    image: np.ndarray  # int16, (I, J, K)
    mask: np.ndarray  # uint8, (I, J, K), 1 in the lesion
    brain: np.ndarray  # bool, (I, J, K)
    affine: np.ndarray  # float64, (4, 4), voxel index -> mm in RAS+


class Scanner:
    """Settings of a clinical scanner."""

    def __init__(self, rng: np.random.Generator) -> None:
        bias, strength = random_field(rng, 55, 16), rng.uniform(0.02, 0.08)
        pixel = rng.uniform(0.9, 1.1)
        self.spacing = np.array([pixel, pixel, rng.uniform(2.5, 3.0)]).round(3)  # mm
        self.centre = rng.uniform(-6, 6, 3).round(1)  # mm, of the volume in the scanner
        self.blur = rng.uniform(0.35, 0.6)  # pixels, width of the in-plane point spread
        self.grain = rng.uniform(0.01, 0.025)  # relative deviation of the tissue's texture
        self.noise = rng.uniform(0.01, 0.025)  # deviation in both channels, white matter being 1
        self.gain = rng.uniform(350, 900)  # stored value of white matter
        self.bias: Field = lambda points: strength * bias(points)  # log of the coil's sensitivity


class Subject:
    """A head, its lesion, and its scanner; the same seed gives the same, whatever the kind."""

    def __init__(self, template: Template, seed: tuple[int, ...], kind: str) -> None:
        rngs = [np.random.default_rng([*seed, stream]) for stream in range(5)]
        self.template, self.rng = template, rngs[4]
        self.anatomy, self.scanner, self.coat = Anatomy(rngs[0]), Scanner(rngs[1]), Coat(rngs[2])
        self.lesion = None
        if kind == "enlarged ventricles":
            self.anatomy.ventricle_growth = rngs[3].uniform(6.5, 9.0)
        elif kind != "healthy":
            self.lesion = Lesion(kind, rngs[3], template, self.anatomy)

    def scan(self, affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """Take K slices of I x J square pixels, of this shape (I, J, K), by the affine (4, 4) from
        the index of a pixel and slice to mm from the middle of the scanner.

        Returns:
            Signal, white matter being about 1; share of the lesion (of the ventricles where there
            is none); and the brain, bool; (K, I, J).
        """
        template, anatomy, fluid = self.template, self.anatomy, self.anatomy.intensity[0]
        points = _points(affine, shape, COARSE)
        bias, inside = _refine(self.scanner.bias(points)[None], shape)[0], points
        if self.lesion:
            inside = self.lesion.displace(points, template.surface(anatomy.to_template(points)))
        slow = _refine(slow_fields(template, anatomy, self.coat, inside), shape)

        tissue = brain_tissue(template, anatomy, slow, float(np.linalg.norm(affine[:3, 0])))
        share = tissue.ventricles < 0
        if self.lesion:
            tissue, share = self.lesion.paint(tissue, _points(affine, shape), *anatomy.intensity)
        brain = tissue.surface > -0.5
        signal = np.where(brain, tissue.intensity, self.coat.intensity(slow, fluid))
        return self._acquire(signal, bias), share, brain

    def _acquire(self, signal: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Add texture, point spread, coil sensitivity and Rician noise; (K, I, J)."""
        scanner, rng = self.scanner, self.rng
        grain = ndi.gaussian_filter(rng.standard_normal(signal.shape, np.float32), (0, 1.2, 1.2))
        signal = signal * (1 + scanner.grain / grain.std() * grain)
        signal = ndi.gaussian_filter(signal, (0, scanner.blur, scanner.blur)) * np.exp(bias)
        real, imaginary = scanner.noise * rng.standard_normal((2, *signal.shape), np.float32)
        return np.hypot(signal + real, imaginary)


def simulate(
    template: Template,
    seed: tuple[int, ...],
    kind: str = "healthy",
    intensity: tuple[float, float] | None = None,
) -> Volume:
    """Draw a subject from a seed, "healthy" or of one of `lesions.KINDS`, and scan the whole head
    in axial slices; `intensity` is that of fluid and grey matter, white matter being 1, in place of
    those of T1w."""
    subject = Subject(template, seed, kind)
    subject.anatomy.intensity = intensity or subject.anatomy.intensity
    scanner = subject.scanner
    affine = np.diag([*scanner.spacing, 1.0])
    shape = tuple(np.rint(FIELD_OF_VIEW / scanner.spacing).astype(int).tolist())
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    found = subject.scan(affine, shape)
    signal, share, brain = (array.transpose(1, 2, 0) for array in found)
    mask = _solid(brain & (share > 0.5)) if kind != "healthy" else np.zeros(shape, np.uint8)
    affine[:3, 3] += scanner.centre
    return Volume(np.rint(scanner.gain * signal).astype(np.int16), mask, brain, affine)


def simulate_plane(template: Template, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Draw a healthy subject as a registered scan shows it in the standard plane.

    The plane lies where a registration would put it but for an error of about 1 degree, 1 mm and
    1 %. It is the mean of two neighbouring slices, slightly smoothed, as an interpolated one is.

    Returns:
        Image, uint8, the 98th percentile of the brain being 255; and the brain, bool; (233, 197),
        rows from anterior, columns to the patient's left.
    """
    subject = Subject(template, seed, "healthy")
    rng = subject.rng
    error = np.eye(4)
    error[:3, :3] = turn(rng.normal(0, 1, 3)) * rng.normal(1, 0.01, 3)
    error[:3, 3] = rng.normal(0, 1, 3)
    apart = 0.82 * subject.scanner.spacing[2]  # mm; spreads as interpolation between slices does
    slices = plane_affine(PLANE_Z - apart / 2) @ np.diag([1, 1, apart, 1])
    to_scanner = subject.anatomy.standard(template) @ error @ slices
    signal, _, brain = subject.scan(to_scanner, (*PLANE_SHAPE, 2))
    image, inside = ndi.gaussian_filter(signal.mean(0), 0.46), brain[0] & brain[1]
    image = 255 * np.clip(image / np.percentile(image[inside], 98), 0, 1)
    return np.rint(image).astype(np.uint8), inside


def _points(affine: np.ndarray, shape: tuple[int, ...], step: int = 1) -> np.ndarray:
    """Positions in mm, (3, K, I, J), of voxels (I, J, K), or of each `step`-th and one more."""
    i, j = (step * np.arange(-(-(count - 1) // step) + 1) for count in shape[:2])
    index = i[:, None], j, np.arange(shape[2])[:, None, None]
    rows = [sum(row[n] * index[n] for n in range(3)) + row[3] for row in affine[:3]]
    return np.stack(rows).astype(np.float32)


def _refine(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation (C, K, i, j) -> (C, K, I, J) from every `COARSE`-th pixel to all."""
    size = [COARSE * (count - 1) + 1 for count in coarse.shape[2:]]
    fine = torch.nn.functional.interpolate(
        torch.from_numpy(coarse), size, mode="bilinear", align_corners=True
    )
    return fine.numpy()[..., : shape[0], : shape[1]]


def _solid(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a mask (I, J, K) slice by slice; drop parts below 12 voxels."""
    filled = ndi.binary_fill_holes(mask, IN_PLANE)
    parts, _ = ndi.label(filled, IN_PLANE)
    large = np.bincount(parts.ravel()) >= 12
    return (filled & large[parts]).astype(np.uint8)
