"""Results for small DICOM scans: real geometry and real regions around a map of made-up values."""

from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from pydicom import Dataset
from pydicom.uid import generate_uid

from pathology_screen.geometry import DISPLAY_AXES
from pathology_screen.io import read_scan
from pathology_screen.screening.regions import find_regions
from pathology_screen.screening.result import Finding, ScreenedSlice, ScreeningResult

THRESHOLD = 0.5
PROVENANCE = {
    "method": "ra",
    "calibration_id": "c" * 64,
    "identity": {"weights_sha256": "d" * 64},
    "healthy": {"subjects": 20},
}


def make_result(path: Path, levels: Sequence[int] = (3,), blobs: int = 3, block: int = 3, **changes) -> ScreeningResult:
    """A result for the scan at `path` whose map has at every voxel of the levels another value below the threshold,
    and above it in blobs of `block` pixels."""
    scan = read_scan(path, axial_slice=True)
    turn = ornt_transform(io_orientation(scan.affine), axcodes2ornt(DISPLAY_AXES))
    back = ornt_transform(axcodes2ornt(DISPLAY_AXES), io_orientation(scan.affine))
    upright = np.zeros_like(apply_orientation(scan.voxels, turn))
    generator = np.random.default_rng(1)
    for level in levels:
        plane = upright[..., level]
        plane[...] = generator.permutation(plane.size).reshape(plane.shape) / plane.size * 0.4
        for row, column in ((0, 0), (0, block + 2), (block + 2, 0))[:blobs]:
            plane[row : row + block, column : column + block] += 0.6 + 0.01 * (row + 2 * column)
    map_volume = np.ascontiguousarray(apply_orientation(upright, back).astype(np.float32))
    regions, labels = find_regions(map_volume, scan.affine, THRESHOLD, volumes=len(levels) > 1)
    grid = np.zeros((8, 8), np.float32)
    slices = tuple(
        ScreenedSlice(level, 0.0123456789 + k, grid, grid, grid, np.eye(4)) for k, level in enumerate(levels)
    )
    result = {
        "outcome": "suspicious",
        "findings": (Finding("derived_image", "DERIVED", "ORIGINAL", refused=False),),
        "score": slices[-1].score,
        "percentile": 95.0,
        "p_value": 1 / 21,
        "image_threshold": 0.011,
        "pixel_threshold": THRESHOLD,
        "false_positive_rate": 0.05,
        "slices": slices,
        "scored_slice": len(slices) - 1,
        "regions": regions,
        "affine": scan.affine,
        "map_volume": map_volume,
        "regions_volume": labels,
        "source": scan.source,
        "provenance": PROVENANCE,
    }
    return ScreeningResult(**(result | changes))


def make_refused(code: str = "missing_slice", reason: str = "[missing_slice] 1 missing", **changes) -> ScreeningResult:
    return ScreeningResult(
        **({"outcome": "not_assessable", "code": code, "reason": reason, "provenance": PROVENANCE} | changes)
    )


def enhanced(datasets: Sequence[Dataset], path: Path, per_frame_orientation: bool = False) -> Path:
    """The series as one multi-frame object."""
    made = highdicom.legacy.LegacyConvertedEnhancedMRImage(datasets, generate_uid(), 1, generate_uid(), 1)
    if per_frame_orientation:
        orientation = made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        del made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        for groups in made.PerFrameFunctionalGroupsSequence:
            groups.PlaneOrientationSequence = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path
