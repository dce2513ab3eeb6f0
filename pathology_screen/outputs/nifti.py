"""Write a map as NIfTI in the geometry of the scan it belongs to."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from pathology_screen.files import replacing


def save_volume(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write values (I, J, K), labels as uint16 and all else as float32, with an affine (4, 4) in
    RAS+ mm; the header holds nothing else of the source."""
    kind = np.uint16 if np.issubdtype(values.dtype, np.integer) else np.float32
    image = nib.Nifti1Image(np.asarray(values, dtype=kind), affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        image.to_filename(temporary)
