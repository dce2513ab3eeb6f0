"""Affine registration of a brain to the MNI152 template, and the measure of how well it fits.

Both images must be brains without skull: the template has none, and what lies around a brain would
pull it away from the template. The sums run on one thread in a fixed order, so the same brain gives
the same bits at every run.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

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
"""Voxels of background that are kept around a brain."""
RADIUS = 60.0
"""mm; coordinates are divided by it, so that a step of the matrix moves the brain as far as one of
the translation."""
STARTS = ((0, 0, 0), (30, 0, 0), (-30, 0, 0), (0, 30, 0), (0, -30, 0), (0, 0, 30), (0, 0, -30))
"""Degrees about x, y and z of the poses to start from."""
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


class _Level(NamedTuple):
    """One resolution: every `stride`-th voxel along each axis, smoothed by `sigma` mm."""

    stride: int
    sigma: float
    iterations: int


FROM_EACH_START = 8
"""Iterations on the coarsest level that every start is given."""
FROM_THE_BEST = 25
"""And those that its best are given then."""
KEPT = 3
"""How many those are."""
LEVELS = (_Level(4, 4.0, 40), _Level(3, 2.0, 40), _Level(2, 1.0, 30))


@dataclass(frozen=True)
class Fit:
    """How well a registered brain fits the template, on voxels of 2 mm that the scan shows.

    Measured on 38 scans (IXI, ds000011, ds002748, TCGA, OpenMS, OASIS, a DICOM series), and on up
    to six made worse (refused values in **bold**):

    | | dice | correlation | turn | shown |
    |---|---|---|---|---|
    | whole heads and extracted brains as they are | 0.94-0.97 | 0.58-0.72 | 1-25 | 1 |
    | in slices of 6 mm | 0.95-0.96 | 0.64-0.66 | | 1 |
    | 6 mm, cortex and ventricles eroded by 2 mm, 56 mm mass | 0.93-0.97 | 0.42-0.62 | | 1 |
    | 6 mm, eroded by 3 mm, a mass of 80 mm, noise | 0.94 | 0.27-0.37 | | 1 |
    | an extraction that cut the top off and kept the neck | 0.91 | **0.33** | 13 | 1 |
    | 8 % of the top not shown (the plane moves by 0.3 mm) | 0.96 | 0.67-0.70 | | 0.96-0.97 |
    | 15 % of the top (0.4 to 2.7 mm) | 0.96-0.97 | 0.61-0.71 | | **0.87-0.95** |
    | 25 % of the back, half of the height (0.2 to 7 mm) | 0.95-0.97 | 0.57-0.73 | | **0.60-0.86** |
    | half a head; 45 % of the top (15 to 33 mm) | 0.89-0.94 | **0.08-0.26** | | **0.56-0.90** |
    | back to front, upside down, two axes exchanged | 0.88-0.94 | **-0.01-0.22** | 11-73 | 1 |
    | left-right and up-down exchanged | 0.96 | 0.66-0.69 | **92** | 1 |
    | random intensities in the outline of a brain | 0.96-0.97 | **-0.01-0.03** | | 1 |
    | slabs of 25 mm (OASIS) | 0.79-0.92 | **0.02-0.15** | | |

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
    """Find the affine map (12 degrees of freedom) that leads from MNI152 space to a scan.

    It maximises the mutual information of Mattes et al. (IEEE TMI 2003) by L-BFGS at three
    resolutions. It starts from seven poses, gives up all but the best three after a few steps, and
    goes on from the best of those.

    Args:
        voxels: (I, J, K) intensities, any orientation and voxel size.
        affine: (4, 4), voxel index -> mm of scanner space, RAS+.
        brain: bool (I, J, K), the brain in it.

    Returns:
        The map (4, 4), mm of MNI152 -> mm of scanner space, both RAS+; and how well the brain fits,
        which `check_fit` judges.

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
    fixed, moving = _template(), _picture(nib.Nifti1Image(alone, cut_affine), field)
    centres = np.array([fixed.middle[0], moving.middle[0]])
    factor = float(np.cbrt(moving.middle[1] / fixed.middle[1]))
    coarsest = _Comparison(moving, LEVELS[0])
    attempts = [coarsest.improve(_turned(factor, angles), FROM_EACH_START) for angles in STARTS]
    promising = sorted(attempts, key=_cost_of)[:KEPT]
    attempts = [coarsest.improve(pose, FROM_THE_BEST) for pose, _ in promising]
    best, _ = coarsest.improve(min(attempts, key=_cost_of)[0], LEVELS[0].iterations)
    for level in LEVELS[1:]:
        best, _ = _Comparison(moving, level).improve(best, level.iterations)
    to_scan = _map(best, centres)
    return to_scan, _measure(fixed, moving, to_scan)


@dataclass(frozen=True, eq=False)
class _Picture:
    """A brain on coarse voxels, float32, cut to its tissue and 0 outside; its affine; and the voxel
    indices (2, 3) of the first and the last corner of the scan's field of view."""

    voxels: np.ndarray
    affine: np.ndarray
    shown: np.ndarray

    @cached_property
    def middle(self) -> tuple[np.ndarray, float]:
        """Centre (3,) of the tissue in mm, and its volume in mm3."""
        tissue = tissue_mask(self.voxels)
        centre = np.array(apply_affine(self.affine, ndi.center_of_mass(tissue)))
        return centre, float(tissue.sum() * spacing(self.affine).prod())

    def smoothed(self, sigma: float) -> np.ndarray:
        """The voxels smoothed by `sigma` mm."""
        return ndi.gaussian_filter(self.voxels, sigma / spacing(self.affine))

    def shows(self, index: np.ndarray) -> np.ndarray:
        """Whether voxel indices (3, N) lie in the field of view."""
        low, high = self.shown[..., None]
        return np.all((index >= low) & (index <= high), axis=0)


def _margin(affine: np.ndarray) -> np.ndarray:
    """(3,): voxels of the background that is kept around a brain."""
    return np.ceil(MARGIN * WORKING_MM / spacing(affine)).astype(int)


def _corners(shape: tuple[int, ...]) -> np.ndarray:
    """(2, 3): voxel indices of the first and the last corner of a volume."""
    return np.array([[-0.5] * 3, np.array(shape) - 0.5])


def _picture(image: nib.Nifti1Image, field: np.ndarray) -> _Picture:
    """Cut a brain, whose scan shows `field` (2, 3; voxel indices of its corners), to its tissue and
    give it voxels of nearly `WORKING_MM`; "no_tissue"."""
    voxels = np.asarray(image.dataobj)
    tissue = tissue_mask(voxels)
    if not tissue.any():
        raise InputError("no_tissue", "no intensity of the brain is positive")
    cut = crop(voxels, image.affine, box_around(tissue, _margin(image.affine)))
    del tissue  # as large as a quarter of the voxels
    coarse = coarsen(nib.Nifti1Image(*cut), WORKING_MM)
    shown = apply_affine(np.linalg.inv(coarse.affine) @ image.affine, field)
    return _Picture(np.asarray(coarse.dataobj), coarse.affine, shown)


@cache
def _template() -> _Picture:
    template = load_brain_template()
    return _picture(template, _corners(template.shape))


def _cost_of(attempt: tuple[np.ndarray, float]) -> float:
    return attempt[1]


def _turned(factor: float, angles: tuple[float, float, float]) -> np.ndarray:
    """(3, 4): centre on centre, of one size, turned by angles in degrees."""
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return np.hstack([factor * turn, np.zeros((3, 1))])


def _map(pose: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(4, 4) in mm of a pose (3, 4), which maps offsets from one centre to offsets from the other,
    by `RADIUS`."""
    affine = np.eye(4)
    affine[:3, :3] = pose[:, :3]
    affine[:3, 3] = centres[1] + RADIUS * pose[:, 3] - pose[:, :3] @ centres[0]
    return affine


class _Points(NamedTuple):
    """Points of the template at one resolution.

    Attributes:
        shape: (I, J, K) of their grid.
        affine: (4, 4), index in it -> offset from the centre of the brain, by `RADIUS`.
        offsets: (4, N), those offsets and 1.
        rows: (N,), where in the flat histogram the row of the intensity at each begins.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray


@cache
def _points(stride: int, sigma: float) -> _Points:
    template = _template()
    first = stride // 2
    picture = template.smoothed(sigma)[(slice(first, None, stride),) * 3]
    affine = template.affine @ np.diag([stride, stride, stride, 1.0])
    affine[:3, 3] = apply_affine(template.affine, [first] * 3) - template.middle[0]
    affine[:3] /= RADIUS
    offsets = map_grid(affine, picture.shape).reshape(3, -1)
    rows = np.rint(_to_bins(picture.ravel())).astype(np.intp) * HISTOGRAM_BINS
    return _Points(picture.shape, affine, np.vstack([offsets, np.ones(len(rows))]), rows)


class _Comparison:
    """Mutual information of both brains at one resolution, as a function of the pose."""

    def __init__(self, moving: _Picture, level: _Level) -> None:
        self.moving = moving
        self.points = _points(level.stride, level.sigma)
        self.target = _Interpolator(_to_bins(moving.smoothed(level.sigma)))
        inverse = np.linalg.inv(moving.affine)
        self.to_index = RADIUS * inverse[:3, :3]
        self.middle = apply_affine(inverse, moving.middle[0])

    def improve(self, pose: np.ndarray, iterations: int) -> tuple[np.ndarray, float]:
        """Improve a pose (3, 4); return it with its negative mutual information (nats)."""
        options = {"maxiter": iterations, "ftol": 1e-7, "gtol": 1e-6}
        result = minimize(self._cost, pose.ravel(), jac=True, method="L-BFGS-B", options=options)
        return result.x.reshape(3, 4), float(result.fun)

    def _cost(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        index = self._places(parameters.reshape(3, 4))
        rows, offsets = self.points.rows, self.points.offsets
        shown = self.moving.shows(index)
        if not shown.all():
            rows, offsets, index = rows[shown], offsets[:, shown], index[:, shown]
        if (count := len(rows)) < LEAST_SHARE * len(shown):
            return 0.0, np.zeros(parameters.size)
        values, slopes = self.target(index)
        bins = np.minimum(values.astype(np.intp), HISTOGRAM_BINS - 2)
        upper = values - bins
        cells = rows + bins
        counts = np.bincount(cells, 1 - upper, HISTOGRAM_BINS**2)
        counts += np.bincount(cells + 1, upper, HISTOGRAM_BINS**2)
        joint = _blur(counts.reshape(HISTOGRAM_BINS, HISTOGRAM_BINS)) / count + LEAST
        ratio = np.log(joint / joint.sum(axis=0) / joint.sum(axis=1, keepdims=True))
        information = float((joint * ratio).sum())
        rise = np.diff(_blur(ratio), axis=1, append=0).ravel()[cells] / count
        gradient = self.to_index.T @ np.einsum("in,jn->ij", slopes * rise, offsets)
        return -information, -gradient.ravel()

    def _places(self, pose: np.ndarray) -> np.ndarray:
        """Voxel indices (3, N) of the scan at which a pose puts the points."""
        to_index = np.eye(4)
        to_index[:3] = self.to_index @ pose @ self.points.affine
        to_index[:3, 3] += self.middle
        return map_grid(to_index, self.points.shape).reshape(3, -1)


def _window() -> np.ndarray:
    """(B, B), symmetric: a cubic B-spline at whole bins, the first and the last of which stand for
    what lies beyond."""
    window = (np.eye(HISTOGRAM_BINS, k=-1) + np.eye(HISTOGRAM_BINS, k=1)) / 6
    return window + np.diag(1 - window.sum(axis=0))


WINDOW = _window()


def _blur(histogram: np.ndarray) -> np.ndarray:
    """A joint histogram as cubic B-spline windows would give it, nearly.

    Products of matrices as small as these are never shared among threads.
    """
    return WINDOW @ histogram @ WINDOW


def _to_bins(values: np.ndarray) -> np.ndarray:
    """Intensities as fractional numbers of bins, 0 to `HISTOGRAM_BINS` - 1."""
    return np.clip(values / values.max(), 0, 1) * (HISTOGRAM_BINS - 1)


class _Interpolator:
    """Trilinear interpolation of a volume, 0 outside it."""

    def __init__(self, volume: np.ndarray) -> None:
        padded = np.pad(volume, 1)
        self.voxels = padded.ravel()
        self.last = np.array(padded.shape)[:, None] - 1.000001
        self.steps = np.array(padded.strides) // padded.itemsize
        # to the eight neighbours of a voxel, (x, y, z, 1)
        self.ahead = np.tensordot(self.steps, np.indices((2, 2, 2)), 1)[..., None]

    def __call__(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Interpolate at voxel indices (3, N): values (N,) and their slopes (3, N)."""
        place = index + 1
        np.minimum(np.maximum(place, 0, out=place), self.last, out=place)
        low = place.astype(np.intp)
        x, y, z = (place - low).astype(np.float32)
        first = low[0] * self.steps[0] + low[1] * self.steps[1] + low[2]
        near = self.voxels.take(self.ahead + first)  # (x, y, z, N)
        across_x, at_x = near[1] - near[0], _between(near, x)
        across_y, at_y = at_x[1] - at_x[0], _between(at_x, y)
        slopes = _between(_between(across_x, y), z), _between(across_y, z), at_y[1] - at_y[0]
        return _between(at_y, z), np.stack(slopes)


def _between(ends: np.ndarray, share: np.ndarray) -> np.ndarray:
    return ends[0] + share * (ends[1] - ends[0])


def _measure(fixed: _Picture, moving: _Picture, to_scan: np.ndarray) -> Fit:
    """How well two brains fit under a map (4, 4), mm of the first -> mm of the second."""
    shape = fixed.voxels.shape
    to_index = np.linalg.inv(moving.affine) @ to_scan @ fixed.affine
    found = ndi.affine_transform(moving.voxels, to_index[:3, :3], to_index[:3, 3], shape, order=1)
    seen = moving.shows(map_grid(to_index, shape).reshape(3, -1)).reshape(shape)
    upper = tissue_mask(fixed.voxels) & (map_grid(fixed.affine, shape)[2] > 0)
    turned, _, back = np.linalg.svd(to_scan[:3, :3])
    turn = float(np.degrees(np.arccos(np.clip((np.trace(turned @ back) - 1) / 2, -1, 1))))
    shown = float(seen[upper].mean()) if upper.any() else 0.0
    images = [np.where(seen, image, 0) for image in (fixed.voxels, found)]
    first, second = map(tissue_mask, images)
    both = first & second
    inner = ndi.binary_erosion(both, iterations=2)
    if not inner.any():
        return Fit(0.0, 0.0, turn, shown)
    dice = 2 * both.sum() / (first.sum() + second.sum())
    one, other = (_standard(_flatten(image, both)[inner].astype(float)) for image in images)
    return Fit(float(dice), float((one * other).mean()), turn, shown)


def _flatten(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Intensities divided by their local mean inside a mask, smoothed by one voxel."""
    share = np.maximum(ndi.gaussian_filter(mask.astype(np.float32), 5), 1e-3)
    near = ndi.gaussian_filter(image * mask, 5) / share
    return ndi.gaussian_filter(image / np.maximum(near, 1e-3 * image.max()), 1)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(values.std(), 1e-12)
