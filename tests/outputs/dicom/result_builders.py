"""Results for small DICOM scans: real geometry and real regions on a plane of made-up values."""

from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat

from pathology_screen.io import read_scan
from pathology_screen.result import Finding, ScreenedSlice, ScreeningResult
from pathology_screen.screening.judge import find_regions
from pathology_screen.space import PLANE_SHAPE, PLANE_Z, Fit, plane_affine, put_back

CENTRE = (0.0, -18.0, PLANE_Z)
"""mm of MNI152; the middle of the plane."""
THRESHOLD = 0.5
PROVENANCE = {
    "method": "ra",
    "calibration_id": "c" * 64,
    "identity": {"weights_sha256": "d" * 64},
    "healthy": {"subjects": 20},
}


def make_result(
    path: Path | Sequence[Path],
    tilt: float = 5.0,
    blobs: int = 3,
    block: int = 4,
    off: float = 0.0,
    **changes,
) -> ScreeningResult:
    """A result for the scan at `path`, whose map has at every pixel of the plane another value
    below the threshold, and above it in blobs of `block` pixels. The plane passes through the
    middle of the scan, `off` mm above it, tilted by `tilt` degrees; a single slice is not
    registered."""
    scan = read_scan(path, axial_slice=True)
    generator = np.random.default_rng(1)
    if min(scan.voxels.shape) == 1:
        shape, affine, mni_affine = scan.voxels.shape[1::-1], scan.affine[:, [1, 0, 2, 3]], None
    else:
        middle = (np.array(scan.voxels.shape) - 1) / 2
        place = (scan.affine @ [*middle, 1])[:3] + [0, 0, off]
        turn = euler2mat(x=np.radians(tilt))
        to_scan = from_matvec(turn, place - turn @ CENTRE)
        shape, mni_affine = PLANE_SHAPE, plane_affine()
        affine = to_scan @ mni_affine
    values = generator.permutation(shape[0] * shape[1]).reshape(shape) / (shape[0] * shape[1]) * 0.4
    row, column = shape[0] // 2 - block, shape[1] // 2 - block
    for down, right in ((0, 0), (0, block + 2), (block + 2, 0))[:blobs]:
        part = np.s_[row + down : row + down + block, column + right : column + right + block]
        values[part] += 0.6 + 0.01 * (down + 2 * right)
    values = values.astype(np.float32)
    regions, labels = find_regions(values, affine, THRESHOLD, mni_affine)
    if mni_affine is None:
        map_volume, regions_volume = (part.T[..., None] for part in (values, labels))
    else:
        back = (PLANE_Z, scan.voxels.shape, scan.affine)
        map_volume, _ = put_back(values, to_scan, *back)
        regions_volume, _ = put_back(labels, to_scan, *back, order=0)
    where = () if mni_affine is None else (PLANE_Z, mni_affine, Fit(0.95, 0.75, 5.0, 1.0))
    one = ScreenedSlice(0.0123456789, values, values, values, labels, affine, *where)
    result = {
        "outcome": "suspicious",
        "findings": (Finding("derived_image", "DERIVED", "ORIGINAL", refused=False),),
        "score": one.score,
        "percentile": 95.0,
        "p_value": 1 / 21,
        "image_threshold": 0.011,
        "pixel_threshold": THRESHOLD,
        "false_positive_rate": 0.05,
        "slice": one,
        "regions": regions,
        "affine": scan.affine,
        "map_volume": np.ascontiguousarray(map_volume),
        "regions_volume": np.ascontiguousarray(regions_volume).astype(np.uint16),
        "source": scan.source,
        "provenance": PROVENANCE,
    }
    return ScreeningResult(**(result | changes))


def make_refused(
    code: str = "missing_slice", reason: str = "[missing_slice] 1 missing", **changes
) -> ScreeningResult:
    changes.setdefault("provenance", PROVENANCE)
    return ScreeningResult("not_assessable", code, reason, **changes)


def content(made):
    """What the report among objects says."""
    return highdicom.sr.Comprehensive3DSR.from_dataset(made["report.dcm"]).content


def whole(made):
    (group,) = content(made).get_image_measurement_groups()
    return group
