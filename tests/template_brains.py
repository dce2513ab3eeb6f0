"""Scans made of the template's brain: where every point of them lies in MNI152 space is known."""

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import Transform
from nibabel.eulerangles import euler2mat
from scipy import ndimage as ndi

from pathology_screen.space import load_brain_template

TO_SCAN = nib.affines.from_matvec(1.05 * euler2mat(x=0.1, y=-0.08, z=0.12), (4.0, -7.0, 9.0))
"""(4, 4), mm of MNI152 -> mm of the scan."""
FIELD_MM = np.array([180.0, 220.0, 180.0])
FIRST_MM = (-90.0, -125.0, -75.0)


def template_brain(millimetres: float = 2.4, to_scan: np.ndarray = TO_SCAN) -> nib.Nifti1Image:
    """The template's brain in another place, as a brain-extracted scan: int16, RAS, voxels of
    `millimetres`."""
    template = load_brain_template()
    affine = nib.affines.from_matvec(millimetres * np.eye(3), FIRST_MM)
    to_voxel = np.linalg.inv(template.affine) @ np.linalg.inv(to_scan) @ affine
    shape = tuple((FIELD_MM / millimetres).astype(int))
    voxels = ndi.affine_transform(
        np.asarray(template.dataobj), to_voxel, output_shape=shape, order=1
    )
    return nib.Nifti1Image((voxels / voxels.max() * 1000).astype(np.int16), affine)


class Located(Transform):
    """Says where a scan lies, so that it need not be registered: the seconds of a registration are
    saved, and every value of a result is known."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if not data.get("axial_slice"):
            data["image"].meta.update(to_scan=TO_SCAN, fit={"dice": 0.95, "correlation": 0.75})
        return dict(data)
