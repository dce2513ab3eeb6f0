"""Affine registration of a brain to the MNI152 template, and the measure of how well it fits.

Both images must be brains without skull: the template has none, and what lies around a brain would
pull it away from the template. The sums run on one thread in a fixed order, so the same brain gives
the same bits at every run.
"""

from dataclasses import dataclass
from functools import cache
from operator import itemgetter

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage as ndi
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from pathology_screen.errors import InputError
from pathology_screen.geometry import box_around, coarsen, crop, map_grid, spacing
from pathology_screen.space.brain import tissue_mask
from pathology_screen.space.template import load_brain_template

WORKING_MM = 2.0
"""Size of the voxels on which both images are compared."""
MARGIN = 4
"""Voxels of that size that are kept around a brain."""
RADIUS = 60.0
"""mm; coordinates are divided by it, so that a step of the matrix moves the brain as far as one of
the translation."""
STARTS = ((0, 0, 0), (30, 0, 0), (-30, 0, 0), (0, 30, 0), (0, -30, 0), (0, 0, 30), (0, 0, -30))
"""Degrees about x, y and z of the poses to start from."""
FROM_EACH_START, KEPT, FROM_THE_BEST = 8, 3, 25
"""On the coarsest level: iterations of every start, how many of them go on, and for how long."""
LEVELS = ((4, 4.0, 40), (3, 2.0, 40), (2, 1.0, 30))
"""Every so many voxels along each axis, smoothed by so many mm, for so many iterations."""
HISTOGRAM_BINS = 32
LEAST_SHARE = 0.1
"""Of the points, that the scan must show; the information that a few seem to hold is chance."""
LEAST = 1e-12
"""Keeps the logarithm of an empty cell finite."""

SMALLEST_DICE = 0.85
SMALLEST_CORRELATION = 0.35
LARGEST_TURN = 55.0
"""Degrees; heads lie up to about 25 away from the template, exchanged axes turn them by 90."""
SMALLEST_SHARE_SHOWN = 0.95


@dataclass(frozen=True)
class Fit:
    """How well a registered brain fits the template, on voxels of 2 mm that the scan shows.

    Measured on 38 scans of seven sources: dice 0.94-0.97, correlation 0.58-0.72, turn 1-25; with
    slices of 6 mm, atrophy and a mass of 56 mm dice 0.93-0.97, correlation 0.42-0.62; 8 % of the
    top not shown (the plane moves by 0.3 mm) 0.96-0.97 shown. Refused: 15 % of the top or 25 % of
    the back missing (shown 0.60-0.95), half a head (correlation 0.08-0.26), an extraction that kept
    the neck (0.33), axes exchanged or turned over (-0.01-0.22, or turn 92), slabs of 25 mm and
    random intensities in the outline of a brain (-0.01-0.15).

    That left and right are exchanged is not found: the template is symmetric.

    Attributes:
        dice: overlap of both brains, 0-1.
        correlation: correlation of the intensities inside both, each divided by its mean over about
            2 cm, so that neither a bias field nor the contrast of the scanner counts; -1 to 1.
        turn: degrees between the axes of the template and those of the scanner, 0-180.
        shown: share of the template's brain above z = 0 that lies in the field of view, 0-1.
    """

    dice: float
    correlation: float
    turn: float = 0.0
    shown: float = 1.0


def check_fit(fit: Fit) -> None:
    """Refuse a brain that was not brought onto the template.

    Raises:
        InputError: "registration_failed".
    """
    faults = []
    if fit.dice < SMALLEST_DICE:
        faults += [f"overlap with the template's brain {fit.dice:.2f}, at least {SMALLEST_DICE:g}"]
    if not fit.correlation >= SMALLEST_CORRELATION:
        faults += [f"local correlation {fit.correlation:.2f}, at least {SMALLEST_CORRELATION:g}"]
    if fit.turn > LARGEST_TURN:
        faults += [f"turned by {fit.turn:.0f} degrees, at most {LARGEST_TURN:g}"]
    if fit.shown < SMALLEST_SHARE_SHOWN:
        least = f"at least {SMALLEST_SHARE_SHOWN:.0%}"
        faults += [f"{fit.shown:.0%} of the upper brain in the field of view, {least}"]
    if faults:
        hint = "Check that the scan shows a whole brain, and that its axes are named rightly"
        raise InputError("registration_failed", "; ".join(faults), hint)


def register(voxels: np.ndarray, affine: np.ndarray, brain: np.ndarray) -> tuple[np.ndarray, Fit]:
    """Find the affine map (4, 4; 12 degrees of freedom) from mm of MNI152 to mm of scanner space,
    both RAS+, and how well the brain fits, which `check_fit` judges.

    It maximises the mutual information of Mattes et al. (IEEE TMI 2003) by L-BFGS at three
    resolutions. It starts from seven poses, gives up all but the best three after a few steps, and
    goes on from the best of those. Takes intensities (I, J, K) of any orientation, their affine
    (4, 4), voxel index -> mm, and the brain in them, bool (I, J, K).

    Raises:
        InputError: "no_tissue".

    >>> head = coarsen(load_brain_template(), 4.0)
    >>> voxels = np.asarray(head.dataobj)
    >>> to_scan, fit = register(voxels, head.affine, tissue_mask(voxels))
    >>> round(fit.dice, 2), fit.turn < 1
    (0.96, True)
    """
    near = box_around(brain, _margin(affine))
    cut, cut_affine = crop(voxels, affine, near)
    alone = np.where(brain[near], cut, 0).astype(np.float32, copy=False)
    field = _corners(voxels.shape) - [side.start for side in near]
    fixed, moving = _template(), _Picture(alone, cut_affine, field)
    levels = [_Comparison(moving, stride, sigma) for stride, sigma, _ in LEVELS]
    # centre on centre, of one size, turned
    turns = Rotation.from_euler("xyz", STARTS, degrees=True).as_matrix()
    turns *= float(np.cbrt(moving.volume / fixed.volume))
    poses = [np.hstack([turn, np.zeros((3, 1))]) for turn in turns]
    attempts = [levels[0].improve(pose, FROM_EACH_START) for pose in poses]
    promising = sorted(attempts, key=itemgetter(1))[:KEPT]
    attempts = [levels[0].improve(pose, FROM_THE_BEST) for pose, _ in promising]
    pose, _ = min(attempts, key=itemgetter(1))
    for level, (*_, iterations) in zip(levels, LEVELS):
        pose, _ = level.improve(pose, iterations)
    to_scan = np.eye(4)
    to_scan[:3, :3] = pose[:, :3]
    to_scan[:3, 3] = moving.centre + RADIUS * pose[:, 3] - pose[:, :3] @ fixed.centre
    return to_scan, _measure(fixed, moving, to_scan)


class _Picture:
    """A brain on voxels of nearly `WORKING_MM`, float32, cut to its tissue, whose centre (3,) and
    volume are in mm and mm3; `shown` (2, 3) are the voxel indices of the first and the last corner
    of the scan's field of view, given as `corners` of the voxels that it is made of."""

    def __init__(self, voxels: np.ndarray, affine: np.ndarray, corners: np.ndarray) -> None:
        tissue = tissue_mask(voxels)
        if not tissue.any():
            raise InputError("no_tissue", "no intensity of the brain is positive")
        cut = crop(voxels, affine, box_around(tissue, _margin(affine)))
        del tissue  # as large as a quarter of the voxels
        coarse = coarsen(nib.Nifti1Image(*cut), WORKING_MM)
        self.voxels, self.affine = np.asarray(coarse.dataobj), coarse.affine
        self.shown = apply_affine(np.linalg.inv(coarse.affine) @ affine, corners)
        tissue = tissue_mask(self.voxels)
        self.centre = np.array(apply_affine(self.affine, ndi.center_of_mass(tissue)))
        self.volume = float(tissue.sum() * spacing(self.affine).prod())

    def smoothed(self, sigma: float) -> np.ndarray:
        return ndi.gaussian_filter(self.voxels, sigma / spacing(self.affine))

    def shows(self, index: np.ndarray) -> np.ndarray:
        """Whether voxel indices (3, N) lie in the field of view."""
        low, high = self.shown[..., None]
        return np.all((index >= low) & (index <= high), axis=0)


def _margin(affine: np.ndarray) -> np.ndarray:
    return np.ceil(MARGIN * WORKING_MM / spacing(affine)).astype(int)


def _corners(shape: tuple[int, ...]) -> np.ndarray:
    """(2, 3): voxel indices of the first and the last corner of a volume."""
    return np.array([[-0.5] * 3, np.array(shape) - 0.5])


@cache
def _template() -> _Picture:
    template = load_brain_template()
    return _Picture(np.asarray(template.dataobj), template.affine, _corners(template.shape))


@cache
def _points(stride: int, sigma: float) -> tuple[tuple, np.ndarray, np.ndarray, np.ndarray]:
    """Every so many voxels of the template, smoothed: the shape of their grid; its affine (4, 4),
    index -> offset from the centre of the brain, by `RADIUS`; those offsets and 1, (4, N); and
    where in the flat histogram the row of each intensity begins, (N,)."""
    template, first = _template(), stride // 2
    picture = template.smoothed(sigma)[(slice(first, None, stride),) * 3]
    affine = template.affine @ np.diag([stride, stride, stride, 1.0])
    affine[:3, 3] = apply_affine(template.affine, [first] * 3) - template.centre
    affine[:3] /= RADIUS
    offsets = map_grid(affine, picture.shape).reshape(3, -1)
    rows = np.rint(_to_bins(picture.ravel())).astype(np.intp) * HISTOGRAM_BINS
    return picture.shape, affine, np.vstack([offsets, np.ones(len(rows))]), rows


class _Comparison:
    """Mutual information of both brains at one resolution, as a function of the pose (3, 4), which
    maps offsets from one centre to offsets from the other, by `RADIUS`."""

    def __init__(self, moving: _Picture, stride: int, sigma: float) -> None:
        self.moving, self.points = moving, _points(stride, sigma)
        inverse = np.linalg.inv(moving.affine)
        self.to_index = RADIUS * inverse[:3, :3]
        self.middle = apply_affine(inverse, moving.centre)
        padded = np.pad(_to_bins(moving.smoothed(sigma)), 1)
        self.padded = padded.ravel()
        self.last = np.array(padded.shape)[:, None] - 1.000001
        self.steps = np.array(padded.strides) // padded.itemsize
        # to the eight neighbours of a voxel, (x, y, z, 1)
        self.ahead = np.tensordot(self.steps, np.indices((2, 2, 2)), 1)[..., None]

    def improve(self, pose: np.ndarray, iterations: int) -> tuple[np.ndarray, float]:
        """Improve a pose; return it with its negative mutual information (nats)."""
        options = {"maxiter": iterations, "ftol": 1e-7, "gtol": 1e-6}
        result = minimize(self.cost, pose.ravel(), jac=True, method="L-BFGS-B", options=options)
        return result.x.reshape(3, 4), float(result.fun)

    def cost(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative mutual information of a flat pose (12,), and its slopes (12,)."""
        shape, affine, offsets, rows = self.points
        to_index = np.eye(4)
        to_index[:3] = self.to_index @ parameters.reshape(3, 4) @ affine
        to_index[:3, 3] += self.middle
        index = map_grid(to_index, shape).reshape(3, -1)
        shown = self.moving.shows(index)
        if not shown.all():
            rows, offsets, index = rows[shown], offsets[:, shown], index[:, shown]
        if (count := len(rows)) < LEAST_SHARE * len(shown):
            return 0.0, np.zeros(parameters.size)

        values, slopes = self._interpolate(index)
        bins = np.minimum(values.astype(np.intp), HISTOGRAM_BINS - 2)
        upper, cells = values - bins, rows + bins
        counts = np.bincount(cells, 1 - upper, HISTOGRAM_BINS**2)
        counts += np.bincount(cells + 1, upper, HISTOGRAM_BINS**2)
        histogram = counts.reshape(HISTOGRAM_BINS, HISTOGRAM_BINS)
        joint = WINDOW @ histogram @ WINDOW / count + LEAST
        ratio = np.log(joint / joint.sum(axis=0) / joint.sum(axis=1, keepdims=True))
        information = float((joint * ratio).sum())
        rise = np.diff(WINDOW @ ratio @ WINDOW, axis=1, append=0).ravel()[cells] / count
        gradient = self.to_index.T @ np.einsum("in,jn->ij", slopes * rise, offsets)
        return -information, -gradient.ravel()

    def _interpolate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Trilinear values (N,) of the scan, in bins, at voxel indices (3, N), 0 outside it; and
        their slopes (3, N)."""
        place = index + 1
        np.minimum(np.maximum(place, 0, out=place), self.last, out=place)
        low = place.astype(np.intp)
        x, y, z = (place - low).astype(np.float32)
        first = low[0] * self.steps[0] + low[1] * self.steps[1] + low[2]
        near = self.padded.take(self.ahead + first)  # (x, y, z, N)
        across_x, at_x = near[1] - near[0], _between(near, x)
        across_y, at_y = at_x[1] - at_x[0], _between(at_x, y)
        slopes = _between(_between(across_x, y), z), _between(across_y, z), at_y[1] - at_y[0]
        return _between(at_y, z), np.stack(slopes)


def _between(ends: np.ndarray, share: np.ndarray) -> np.ndarray:
    return ends[0] + share * (ends[1] - ends[0])


def _to_bins(values: np.ndarray) -> np.ndarray:
    return np.clip(values / values.max(), 0, 1) * (HISTOGRAM_BINS - 1)


WINDOW = (np.eye(HISTOGRAM_BINS, k=-1) + np.eye(HISTOGRAM_BINS, k=1)) / 6
WINDOW += np.diag(1 - WINDOW.sum(axis=0))
"""On both sides of a joint histogram nearly a cubic B-spline at whole bins, the first and the last
of which stand for what lies beyond. Products of matrices as small are never shared among threads.
"""


def _measure(fixed: _Picture, moving: _Picture, to_scan: np.ndarray) -> Fit:
    """How well two brains fit under a map (4, 4), mm of the first -> mm of the second."""
    shape = fixed.voxels.shape
    to_index = np.linalg.inv(moving.affine) @ to_scan @ fixed.affine
    found = ndi.affine_transform(moving.voxels, to_index[:3, :3], to_index[:3, 3], shape, order=1)
    seen = moving.shows(map_grid(to_index, shape).reshape(3, -1)).reshape(shape)
    upper = tissue_mask(fixed.voxels) & (map_grid(fixed.affine, shape)[2] > 0)
    turned, _, back = np.linalg.svd(to_scan[:3, :3])
    turn = float(np.degrees(np.arccos(np.clip((np.trace(turned @ back) - 1) / 2, -1, 1))))
    shown = float(seen[upper].mean())
    images = [np.where(seen, image, 0) for image in (fixed.voxels, found)]
    first, second = map(tissue_mask, images)
    both = first & second
    inner = ndi.binary_erosion(both, iterations=2)
    if not inner.any():
        return Fit(0.0, 0.0, turn, shown)
    dice = 2 * both.sum() / (first.sum() + second.sum())
    one, other = (_local_contrast(image, both, inner) for image in images)
    return Fit(float(dice), float((one * other).mean()), turn, shown)


def _local_contrast(image: np.ndarray, mask: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Intensities over their local mean in a mask, smoothed by one voxel: the inner ones (N,),
    standardised."""
    share = np.maximum(ndi.gaussian_filter(mask.astype(np.float32), 5), 1e-3)
    near = ndi.gaussian_filter(image * mask, 5) / share
    flat = ndi.gaussian_filter(image / np.maximum(near, 1e-3 * image.max()), 1)
    values = flat[inner].astype(float)
    return (values - values.mean()) / max(values.std(), 1e-12)
