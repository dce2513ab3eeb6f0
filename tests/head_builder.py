"""Heads and brains of nested ellipsoids, in any stored orientation."""

import numpy as np

SEMI_AXES = np.array([66.0, 83.0, 62.0])  # mm, brain without fluid
SHELLS = {
    "scalp": (16.0, 0.9),
    "bone": (9.0, 0.05),
    "fluid": (3.0, 0.2),
    "grey": (0.0, 0.6),
    "white": (-8.0, 1.0),
}


def ellipsoids(shape, affine, *, brain_only, offset=(0.0, 0.0, 0.0)):
    """T1-weighted intensities 0 to 1000 of a head, or of its brain alone, centred in the volume,
    float32 (I, J, K)."""
    voxels = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    place = voxels @ np.asarray(affine)[:3, :3].T - np.asarray(offset)  # mm in RAS+
    volume = np.zeros(shape, np.float32)
    for name, (margin, value) in SHELLS.items():
        if not (brain_only and name in ("scalp", "bone")):
            inside = ((place / (SEMI_AXES + margin)) ** 2).sum(-1) <= 1
            volume[inside] = 1000 * value
    return volume
