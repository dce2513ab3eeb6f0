"""Lesions drawn into a synthetic brain: each displaces and repaints tissue."""

import nibabel as nib
import numpy as np
from scipy import ndimage as ndi

from pathology_screen.cohorts.anatomy import Anatomy, Template, Tissue, random_field, soft_step

RADII = {  # mm, smallest and largest
    "hypointense lesion": (8, 15),
    "hyperintense lesion": (7, 12),
    "mass": (11, 17),
    "resection cavity": (13, 19),
}
KINDS = (*RADII, "enlarged ventricles")


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

    def _offset(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vector and distance from the centre."""
        offset = points - np.float32(self.centre).reshape(3, *[1] * (points.ndim - 1))
        return offset, np.sqrt((offset**2).sum(0))

    def displace(self, points: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Where tissue seen at points (3, ...) lay before a mass pushed it outwards; `room` is the
        distance in mm to the brain's outer surface, which does not give way. Other lesions leave it
        in place."""
        if self.kind != "mass":
            return points
        offset, distance = self._offset(points)
        fading = np.exp(-np.maximum(distance - self.radius, 0) / (2 * self.radius))
        push = np.minimum(0.65 * self.radius * fading, 0.7 * distance) * np.clip(room / 10, 0, 1)
        return points - offset * (push / np.maximum(distance, 1e-3)).astype(np.float32)

    def paint(
        self, tissue: Tissue, points: np.ndarray, fluid: float, grey: float
    ) -> tuple[Tissue, np.ndarray]:
        """Repaint tissue at points (3, S, H, W); return it and the lesion's share of each, 0-1."""
        border = self.radius * (1 + 0.25 * self.outline(points))
        inward = border - self._offset(points)[1]  # mm from the border
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
