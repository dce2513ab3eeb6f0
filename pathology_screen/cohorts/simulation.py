"""One synthetic T1w acquisition of a drawn head: lesion, blur, bias field, noise."""

from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage as ndi

from pathology_screen.cohorts.anatomy import (
    Anatomy,
    Coat,
    Field,
    Template,
    Tissue,
    along,
    brain_tissue,
    random_field,
    slow_fields,
    soft_step,
    turn,
)
from pathology_screen.space import PLANE_SHAPE, PLANE_Z, plane_affine

RADII = {  # mm, smallest and largest
    "hypointense lesion": (8, 15),
    "hyperintense lesion": (7, 12),
    "mass": (11, 17),
    "resection cavity": (13, 19),
}
KINDS = (*RADII, "enlarged ventricles")
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


class Lesion:
    """One focal lesion, drawn where its kind (one of `RADII`) occurs: a cavity at the surface, what
    is bright in the cortex, the others in the depth. The standard plane cuts it near its centre."""

    def __init__(
        self, kind: str, rng: np.random.Generator, template: Template, anatomy: Anatomy
    ) -> None:
        to_scanner = anatomy.standard(template)
        self.kind = kind
        self.radius = radius = float(rng.uniform(*RADII[kind]))  # mm, mean
        at_surface = {
            "resection cavity": (2, 7),
            "hyperintense lesion": (0.3 * radius, 0.9 * radius),
        }
        shallow, deep = at_surface.get(kind, (0.8 * radius, 40))  # mm below it
        while True:
            x = rng.choice([-1, 1]) * rng.uniform(14, 60)
            place = [x, rng.uniform(-75, 42), rng.uniform(21, 25)]
            self.centre = nib.affines.apply_affine(to_scanner, place)  # (3,) in scanner mm
            position = anatomy.to_template(self.centre.astype(np.float32))
            (ventricles,) = template.at(template.sharp[3:], position)
            if shallow < template.surface(position) < deep and ventricles > 0.6 * radius:
                break
        self.outline = random_field(rng, 0.5 * radius)  # the border's relative deviation
        self.texture = random_field(rng, 2.5, 48)
        self.strength = float(rng.uniform())  # place in the range of contrasts of its kind

    def displace(self, points: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Where tissue seen at points (3, ...) lay before a mass pushed it outwards; `room` is the
        distance in mm to the brain's outer surface, which does not give way. Other lesions leave it
        in place."""
        if self.kind != "mass":
            return points
        offset = points - along(self.centre, points)
        distance = np.sqrt((offset**2).sum(0))
        fading = np.exp(-np.maximum(distance - self.radius, 0) / (2 * self.radius))
        push = np.minimum(0.65 * self.radius * fading, 0.7 * distance) * np.clip(room / 10, 0, 1)
        return points - offset * (push / np.maximum(distance, 1e-3)).astype(np.float32)

    def paint(
        self, tissue: Tissue, points: np.ndarray, fluid: float, grey: float
    ) -> tuple[Tissue, np.ndarray]:
        """Repaint tissue at points (3, S, H, W); return it and the lesion's share of each, 0-1."""
        border = self.radius * (1 + 0.25 * self.outline(points))
        offset = points - along(self.centre, points)
        inward = border - np.sqrt((offset**2).sum(0))  # mm from the border
        texture = self.texture(points)
        brain, old = tissue.surface > -0.5, tissue.intensity
        around: float | np.ndarray = 0.0  # share of changed tissue around that counts as lesion
        if self.kind == "hypointense lesion":
            share = soft_step(inward, 1.0) * (tissue.ventricles > 0.5)
            new = fluid + (0.15 + 0.45 * self.strength) * (grey - fluid) + 0.05 * texture
        elif self.kind == "hyperintense lesion":
            share = soft_step(inward, 0.6) * (tissue.ventricles > 0.5)
            new = 1.25 + 0.3 * self.strength + 0.06 * texture
        elif self.kind == "resection cavity":
            share = soft_step(inward, 0.4)
            new = 0.9 * fluid + 0.02 * texture
            gliosis = soft_step(inward + 2.5, 0.6) * (tissue.surface > 1)
            old = old + 0.5 * gliosis * (0.85 * grey - old)
        else:  # a mass: dark core, rind, and oedema that spreads in the white matter
            share = soft_step(inward, 0.8)
            rind = grey * (0.95 + 0.15 * self.strength) + 0.06 * texture
            new = rind + soft_step(inward - 0.35 * self.radius, 1.0) * (1.6 * fluid - rind)
            white = ndi.gaussian_filter(tissue.white, (0, 2, 2))
            around = soft_step(inward + 0.5 * self.radius, 2.0) * white
            old = old + around * (0.95 * grey - old)
        intensity = (old + share * (new - old)) * brain
        return tissue._replace(intensity=intensity), np.maximum(share, around) * brain


class Subject:
    """A head, its lesion, and its scanner; the same seed gives the same, whatever the kind."""

    def __init__(self, template: Template, seed: tuple[int, ...], kind: str) -> None:
        of_head, rng, of_coat, of_lesion, self.rng = (
            np.random.default_rng([*seed, stream]) for stream in range(5)
        )
        self.template, self.anatomy, self.coat = template, Anatomy(of_head), Coat(of_coat)
        bias, strength = random_field(rng, 55, 16), rng.uniform(0.02, 0.08)
        pixel = rng.uniform(0.9, 1.1)
        self.spacing = np.array([pixel, pixel, rng.uniform(2.5, 3.0)]).round(3)  # mm
        self.centre = rng.uniform(-6, 6, 3).round(1)  # mm, of the volume in the scanner
        self.blur = rng.uniform(0.35, 0.6)  # pixels, width of the in-plane point spread
        self.grain = rng.uniform(0.01, 0.025)  # relative deviation of the tissue's texture
        self.noise = rng.uniform(0.01, 0.025)  # deviation in both channels, white matter being 1
        self.gain = rng.uniform(350, 900)  # stored value of white matter
        self.bias: Field = lambda points: strength * bias(points)  # log of the coil's sensitivity
        self.lesion = None
        if kind == "enlarged ventricles":
            self.anatomy.ventricle_growth = of_lesion.uniform(6.5, 9.0)
        elif kind != "healthy":
            self.lesion = Lesion(kind, of_lesion, template, self.anatomy)

    def scan(self, affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """Take K slices of I x J square pixels, of this shape (I, J, K), by the affine (4, 4) from
        the index of a pixel and slice to mm from the middle of the scanner.

        Give the signal, white matter being about 1; the share of the lesion (of the ventricles
        where there is none); and the brain, bool; all (K, I, J).
        """
        template, anatomy, rng = self.template, self.anatomy, self.rng
        points = _points(affine, shape, COARSE)
        bias, inside = _refine(self.bias(points)[None], shape)[0], points
        if self.lesion:
            inside = self.lesion.displace(points, template.surface(anatomy.to_template(points)))
        slow = _refine(slow_fields(template, anatomy, self.coat, inside), shape)
        tissue = brain_tissue(template, anatomy, slow, float(np.linalg.norm(affine[:3, 0])))
        share = tissue.ventricles < 0
        if self.lesion:
            tissue, share = self.lesion.paint(tissue, _points(affine, shape), *anatomy.intensity)
        brain = tissue.surface > -0.5
        signal = np.where(brain, tissue.intensity, self.coat.intensity(slow, anatomy.intensity[0]))

        # texture, point spread, coil sensitivity and Rician noise
        grain = ndi.gaussian_filter(rng.standard_normal(signal.shape, np.float32), (0, 1.2, 1.2))
        signal = signal * (1 + self.grain / grain.std() * grain)
        signal = ndi.gaussian_filter(signal, (0, self.blur, self.blur)) * np.exp(bias)
        real, imaginary = self.noise * rng.standard_normal((2, *signal.shape), np.float32)
        return np.hypot(signal + real, imaginary), share, brain


def simulate(
    template: Template,
    seed: tuple[int, ...],
    kind: str = "healthy",
    intensity: tuple[float, float] | None = None,
) -> Volume:
    """Draw a subject from a seed, "healthy" or of one of `KINDS`, and scan the whole head in axial
    slices; `intensity` is that of fluid and grey matter, white matter being 1, in place of those of
    T1w."""
    subject = Subject(template, seed, kind)
    subject.anatomy.intensity = intensity or subject.anatomy.intensity
    affine = np.diag([*subject.spacing, 1.0])
    shape = tuple(np.rint(FIELD_OF_VIEW / subject.spacing).astype(int).tolist())
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    found = subject.scan(affine, shape)
    signal, share, brain = (array.transpose(1, 2, 0) for array in found)
    mask = np.zeros(shape, np.uint8)
    if kind != "healthy":  # without holes in its slices, nor parts below 12 voxels
        filled = ndi.binary_fill_holes(brain & (share > 0.5), IN_PLANE)
        parts, _ = ndi.label(filled, IN_PLANE)
        mask = (filled & (np.bincount(parts.ravel()) >= 12)[parts]).astype(np.uint8)
    affine[:3, 3] += subject.centre
    return Volume(np.rint(subject.gain * signal).astype(np.int16), mask, brain, affine)


def simulate_plane(template: Template, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Draw a healthy subject as a registered scan shows it in the standard plane: image, uint8, the
    98th percentile of the brain being 255, and brain, bool, both (233, 197) as the plane runs.

    The plane lies where a registration would put it but for an error of about 1 degree, 1 mm and
    1 %. It is the mean of two neighbouring slices, slightly smoothed, as an interpolated one is.
    """
    subject = Subject(template, seed, "healthy")
    rng = subject.rng
    error = np.eye(4)
    error[:3, :3] = turn(rng.normal(0, 1, 3)) * rng.normal(1, 0.01, 3)
    error[:3, 3] = rng.normal(0, 1, 3)
    apart = 0.82 * subject.spacing[2]  # mm; spreads as interpolation between slices does
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
