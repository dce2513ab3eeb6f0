"""One synthetic T1w head: the MNI152 template, folded and clothed anew for every seed.

Deep structures are the template's; the cortex is drawn anew: sulci are the zero surfaces of a
random field that runs towards the depth of the hemisphere, and every point is cerebrospinal fluid,
grey or white matter by its distance to the nearest sulcus or to the brain surface. Skull and scalp
are layers around the brain; face and neck are flesh. All fields are functions of the position in
millimetres, so the slices of one volume belong together.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage as ndi
from scipy.spatial.transform import Rotation
from torch.nn.functional import grid_sample

from pathology_screen.space import load_brain_template, load_tissue

Field = Callable[[np.ndarray], np.ndarray]  # positions in mm (3, ...) -> values (...)

MARGIN = 36  # mm around the brain in which the distance to its surface is known
CENTRE = np.array([0, -17, 10], np.float32)  # mm in MNI space: lies near the centre of every volume
# mm in MNI space, right
HEMISPHERE_CENTRE, HEMISPHERE_RADII = np.array([[28, -18, 12], [40, 86, 62]], np.float32)


class Template(NamedTuple):
    """Volumes on the 1 mm MNI152 grid, cut to the brain; float32."""

    origin: np.ndarray  # (3,), position of voxel (0, 0, 0) in mm
    sharp: np.ndarray  # (4, I, J, K): T1w, 0-255; probability of white matter; distance in mm into
    # the tissue from the nearest surface or fissure, and out of the lateral ventricles
    smooth: np.ndarray  # (4, I, J, K): 1 where the template is kept, 0 where the cortex is drawn
    # anew; the direction away from the lateral ventricles (3)
    outline: np.ndarray  # (1, I, J, K), `MARGIN` voxels more on every side: distance in mm into the
    # brain from its outer surface

    def at(self, volumes: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Values (C, ...) of volumes (C, I, J, K) at points (3, ...) in mm."""
        return _sample(volumes, points - along(self.origin, points))

    def surface(self, points: np.ndarray) -> np.ndarray:
        """Distance to the brain's outer surface in mm, positive inside, at points (3, ...)."""
        return _sample(self.outline, points - along(self.origin - MARGIN, points))[0]


def _sample(volumes: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Interpolate volumes (C, I, J, K) linearly at voxel indices (3, ...); float32, (C, ...)."""
    last_axis_first = index.reshape(3, -1)[::-1].T
    grid = 2 * last_axis_first / np.float32(np.array(volumes.shape[:0:-1]) - 1) - 1
    inputs = torch.from_numpy(volumes)[None], torch.from_numpy(grid)[None, None, None]
    values = grid_sample(*inputs, padding_mode="border", align_corners=True)
    return values.numpy().reshape(len(volumes), *index.shape[1:])


def along(vector: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A vector in the shape that broadcasts against points (3, ...)."""
    return np.asarray(vector, np.float32).reshape(3, *[1] * (points.ndim - 1))


def soft_step(distance: np.ndarray, width: float) -> np.ndarray:
    """Rise from 0 to 1 across distance 0 (partial volume), within a width in the same unit."""
    return 1 / (1 + np.exp(np.clip(distance / np.float32(-width), -30, 30)))


def _signed_distance(inside: np.ndarray) -> np.ndarray:
    distance = ndi.distance_transform_edt(inside) - ndi.distance_transform_edt(~inside)
    return distance.astype(np.float32)


@cache
def load_template() -> Template:
    """Derive the volumes of `Template` from the MNI152 maps; ConfigError if nilearn lacks them."""
    t1 = np.asarray(load_brain_template().dataobj)
    white = np.asarray(load_tissue("white").dataobj, np.float32) / 255
    (box,) = ndi.find_objects((t1 > 0).astype(np.uint8))
    t1, white = t1[box], white[box]
    origin = np.array([part.start for part in box]) - np.array([98.0, 134.0, 72.0])
    axes = (np.arange(n, dtype=np.float32) + o for n, o in zip(t1.shape, origin))
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)

    brain = t1 > 0
    parts, _ = ndi.label(brain & (t1 < 105))
    seeds = [parts[tuple((np.array([side * 9, -4, 21]) - origin).astype(int))] for side in (-1, 1)]
    ventricles = np.isin(parts, seeds)
    from_ventricles = -_signed_distance(ventricles)
    away = np.stack(np.gradient(ndi.gaussian_filter(from_ventricles, 2.5)))

    # kept: thalamus, basal ganglia and insula; hindbrain; brain stem; all near the ventricles
    nuclei = np.sqrt((x / 37) ** 2 + ((y + 8) / 38) ** 2 + ((z - 4) / 26) ** 2)
    hindbrain = np.sqrt((x / 75) ** 2 + ((y + 62) / 42) ** 2 + ((z + 40) / 36) ** 2)
    stem = np.sqrt((x / 22) ** 2 + ((y + 28) / 26) ** 2 + ((z + 20) / 30) ** 2)
    outside_kept = np.minimum(
        30 * np.minimum(nuclei, hindbrain) - 30, np.minimum(22 * stem - 22, from_ventricles - 5)
    )
    kept = soft_step(-outside_kept, 1.2)

    midline = (np.abs(x) < 1) & (white < 0.35) & (kept < 0.5)
    fissures = (t1 < 115) & ~ventricles | midline
    depth = ndi.distance_transform_edt(brain & ~fissures)
    return Template(
        origin=origin,
        sharp=np.stack([t1, white, depth, from_ventricles]).astype(np.float32),
        smooth=np.stack([kept, *away]).astype(np.float32),
        outline=_signed_distance(np.pad(brain, MARGIN))[None],
    )


def random_field(rng: np.random.Generator, sigma: float, nodes: int = 32) -> Field:
    """Draw a smooth, periodic, zero-mean, unit-variance function of the position: white noise
    behind a Gaussian of width `sigma` mm, on `nodes` points an axis; its period is `nodes * sigma /
    1.5`."""
    noise = rng.standard_normal((nodes,) * 3, dtype=np.float32)
    grid = ndi.gaussian_filter(noise, 1.5, mode="wrap")
    grid = np.pad((grid - grid.mean()) / grid.std(), (0, 1), mode="wrap")[None]
    return lambda points: _sample(grid, np.mod(points * np.float32(1.5 / sigma), nodes))[0]


class Anatomy:
    """What makes the brain of a healthy adult differ from the template, drawn once for a subject;
    wide ventricles and wide sulci come together, as with age."""

    def __init__(self, rng: np.random.Generator) -> None:
        atrophy = float(np.clip(rng.normal(), -1.6, 1.8))
        wide, fine = _vector_field(rng, 30, 3.0), _vector_field(rng, 12, 1.0)
        primary, secondary = random_field(rng, 4.2, 80), random_field(rng, 3.4, 80)
        depth, shallow = random_field(rng, 8), random_field(rng, 6)
        self.scale = rng.normal(0.935, 0.025) * rng.normal(1, 0.02, 3)  # relative to the template
        self.rotation = turn(rng.normal(0, [3, 1.5, 2.5]))
        self.offset = rng.normal(0, [2, 3, 2])  # mm, of the head in the scanner
        self.bend: Field = lambda points: wide(points) + fine(points)  # (3, ...) mm, of the shape
        self.wiggle = _vector_field(rng, 7, 2.5)  # (3, ...) mm, bends the sulci in their depth
        self.sulci: tuple[tuple[Field, Field], ...] = (  # zero at the sulci; their depth in mm
            (primary, lambda points: np.clip(15 + 4 * depth(points), 4, 25)),
            (secondary, lambda points: np.clip(5 + 3 * shallow(points), -4, 10)),
        )
        self.ventricle_growth = 0.6 + 1.1 * atrophy + rng.normal(0, 0.4)  # mm that walls move out
        self.sulcal_width = 0.5 + 0.13 * atrophy + rng.uniform(-0.1, 0.1)  # mm, half, in the depth
        self.cortex = rng.uniform(2.6, 3.2)  # mm of grey matter
        # of fluid and grey matter, white matter being 1
        self.intensity = rng.uniform(0.17, 0.30), rng.uniform(0.58, 0.71)

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Position in the template of points (3, ...) in scanner mm, before the ventricles grow."""
        centred = points - along(self.offset, points) + self.bend(points)
        columns = self.rotation.astype(np.float32).T
        turned = [sum(column[j] * centred[j] for j in range(3)) for column in columns]
        return np.stack(turned) / along(self.scale, points) + along(CENTRE, points)

    def standard(self, template: Template) -> np.ndarray:
        """The affine map (4, 4), template to scanner in mm, that a registration looks for."""
        points = 16 * np.indices((11, 11, 11)).reshape(3, -1).astype(np.float32) - 80
        position = self.to_template(points)
        brain = template.surface(position) > 0
        known = np.vstack([position[:, brain], np.ones(brain.sum())])
        affine = np.eye(4)
        affine[:3] = np.linalg.lstsq(known.T, points[:, brain].T, rcond=None)[0].T
        return affine


def _vector_field(rng: np.random.Generator, sigma: float, amplitude: float) -> Field:
    parts = [random_field(rng, sigma) for _ in range(3)]
    return lambda points: np.stack([np.float32(amplitude) * part(points) for part in parts])


def turn(degrees: np.ndarray) -> np.ndarray:
    """(3, 3), turns about the first, second and third axis, one after the other."""
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def _fold_space(points: np.ndarray) -> np.ndarray:
    """Move points to the surface of their hemisphere, where a field varies little with depth."""
    side = np.where(points[0] < 0, np.float32(-1), np.float32(1))
    centre = [side * HEMISPHERE_CENTRE[0], HEMISPHERE_CENTRE[1], HEMISPHERE_CENTRE[2]]
    offset = [points[i] - centre[i] for i in range(3)]
    radius = np.sqrt(sum((offset[i] / HEMISPHERE_RADII[i]) ** 2 for i in range(3)))
    stretch = np.float32(0.55) + np.float32(0.45) / np.maximum(radius, np.float32(0.35))
    return np.stack([centre[i] + offset[i] * stretch for i in range(3)])


class Coat:
    """What lies outside the brain: layers by distance from its surface; flesh of face and neck."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.gap = rng.uniform(1.0, 3.0)  # mm of fluid
        self.bone = rng.uniform(4.5, 7.0)  # mm
        self.fat = rng.uniform(1.5, 4.5)  # mm under the skin
        self.marrow = rng.uniform(0.25, 0.55)  # intensity of the skull's spongy middle
        self.brightness = rng.uniform(0.75, 1.2)  # intensity of the fat
        self.waviness = random_field(rng, 14)  # of the thickness of the layers
        self.flesh = random_field(rng, 7)  # of muscle; its highest parts are cavities full of air

    def intensity(self, slow: np.ndarray, fluid: float) -> np.ndarray:
        """Intensity (S, H, W) outside the brain, by `slow_fields` and the fluid's intensity."""
        (x, y, z), (surface, waviness, flesh) = slow[:3], slow[9:]
        outside = -surface - self.gap - np.maximum(0.6 * waviness, -self.gap)
        temple = np.exp(-(((y - 12) / 26) ** 2) - (np.maximum(z + 12, 0) / 26) ** 2)
        muscle = 9 * temple * np.clip((np.abs(x) - 35) / 15, 0, 1)  # mm of temporal muscle
        face = 60 - 60 * np.sqrt((x / 60) ** 2 + ((y - 42) / 60) ** 2 + ((z + 62) / 70) ** 2)
        neck = np.minimum(56 - np.hypot(x, y + 25), -45 - z)
        above_brain = self.bone + muscle + self.fat + 1.2 - outside
        inward = np.maximum(np.maximum(face, neck), above_brain)  # mm from the skin
        table = 0.28 * self.bone
        skull = _layers(outside, [0, table, self.bone - table], [fluid, 0.08, self.marrow, 0.08])
        meat = np.where(flesh > 1.5, 0.04, 0.5 + 0.05 * flesh)
        skin = _layers(inward, [0, 1.2], [0, 0.6, self.brightness])
        skin += soft_step(inward - self.fat - 1.2, 0.4) * (meat - skin)
        return (skull + soft_step(outside - self.bone, 0.3) * (skin - skull)).astype(np.float32)


def _layers(distance: np.ndarray, edges: list[float], values: list[float]) -> np.ndarray:
    """Values that change at edges, within one millimetre (partial volume)."""
    return np.interp(distance, np.add.outer(edges, [-0.5, 0.5]).ravel(), np.repeat(values, 2)[1:-1])


class Tissue(NamedTuple):
    """A brain at sampled points; every array float32, shape (S, H, W)."""

    intensity: np.ndarray  # 0 outside the brain, white matter near 1
    white: np.ndarray  # share of white matter, 0-1
    surface: np.ndarray  # distance to the outer surface in mm, positive inside
    ventricles: np.ndarray  # distance to the lateral ventricles in mm, negative inside


def slow_fields(template: Template, anatomy: Anatomy, coat: Coat, points: np.ndarray) -> np.ndarray:
    """What varies so slowly that a coarse grid of points (3, S, h, w) in scanner mm holds it; (12,
    S, h, w): position in the template (3), position where the sulcal fields are read (3), depth of
    the primary and secondary sulci, share of kept template, distance to the brain's surface,
    waviness and flesh of the coat."""
    position = anatomy.to_template(points)
    folds = _fold_space(position + anatomy.wiggle(points))
    # tissue moves as the ventricles grow: less far away, and what is inside stays inside
    distance = template.at(template.sharp[3:], position)
    moved = np.float32(anatomy.ventricle_growth) * np.exp(np.maximum(distance, 0) / -15)
    moved = np.minimum(moved, np.maximum(distance + 2, 0))
    position = position - moved * template.at(template.smooth[1:], position)
    kept = template.at(template.smooth[:1], position)
    depths = (depth(points) for _, depth in anatomy.sulci)
    around = template.surface(position), coat.waviness(position), coat.flesh(position)
    return np.stack([*position, *folds, *depths, *kept, *around])


def brain_tissue(template: Template, anatomy: Anatomy, slow: np.ndarray, pixel: float) -> Tissue:
    """Tissue at the points of slices, by `slow_fields` there; `pixel` is their distance in mm."""
    near = slow[9] > -4  # the N points that are worth the work
    position, folds, depths, (kept,) = np.split(slow[:9, near], [3, 6, 8])
    t1, white, inside, ventricles = template.at(template.sharp, position)
    surface = template.surface(position)

    def full(values: np.ndarray, elsewhere: np.ndarray | float = 0) -> np.ndarray:
        """Values (N,) at all points (S, H, W)."""
        result = np.full(near.shape, elsewhere, np.float32)
        result[near] = values
        return result

    # cortex: distance to the nearest pial surface (outer surface, fissure or sulcus)
    pial, spared = inside, 25 * np.maximum(white - np.float32(0.78), 0)
    for (field, _), depth in zip(anatomy.sulci, depths):
        value = field(folds)
        slope = np.hypot(*np.gradient(full(value), pixel, axis=(1, 2)))[near]
        below = np.maximum(inside - depth, 0) + spared  # below its fundus a sulcus recedes
        across = np.abs(value) / np.maximum(slope, np.float32(0.03))
        pial = np.minimum(pial, np.hypot(across, below))
    half_width = anatomy.sulcal_width * (1 + np.exp(inside / -4))
    fluid = np.maximum(soft_step(half_width - pial, 0.3), np.clip((130 - t1) / 50, 0, 1))
    to_white = np.minimum(pial - half_width - anatomy.cortex, 7 * (white - np.float32(0.12)))
    white_share = soft_step(to_white, 0.35) * (1 - fluid)
    csf, grey = anatomy.intensity
    cortex = csf * fluid + white_share + grey * (1 - fluid - white_share)

    levels = [0.9 * csf, csf, grey, grey + 0.4 * (1 - grey), 1.0, 1.04]
    core = np.interp(t1, [30, 68, 160, 195, 223, 245], levels).astype(np.float32)
    intensity = (cortex + kept * (core - cortex)) * (surface > -0.5)
    white_share = white_share + kept * (np.clip((t1 - 190) / 33, 0, 1) - white_share)
    outside = full(surface, slow[9]), full(ventricles, np.inf)
    return Tissue(full(intensity), full(white_share), *outside)
