"""The one form in which a scan leaves the readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume in the order in which it was stored, or one slice of it.

    Attributes:
        voxels: float32, shape (I, J, K), real-world intensities (rescale applied, MONOCHROME1
            inverted) above those of the background, which is 0 (see `io.intensities`). DICOM slices
            lie along the last axis. Where a part of the volume was read, only that part; its cut
            axis has one voxel.
        affine: float64, shape (4, 4), voxel index of `voxels` -> millimetres in RAS+.
        volume_shape: shape of the whole stored volume; equals `voxels.shape` unless a part was
            read.
        volume_affine: affine of the whole stored volume; equals `affine` unless a part was read.
        source: facts about the origin, plain (JSON) and free of patient data. Always `format`
            ("dicom", "nifti" or "png"), `file_count` and `obliquity_deg` (angle between the
            volume's and the patient's axes); for NIfTI `affine_source` and, where the header states
            a second orientation that is another, `other_orientation`; for DICOM `series_uid`,
            `transfer_syntax`, `ignored_file_count`, and what `io.acquisition` knows: there, a
            missing entry means unknown.
        subject: of a DICOM series a hash of PatientID, to count people by; None where it is absent.
            It is never written anywhere.
    """

    voxels: np.ndarray
    affine: np.ndarray
    volume_shape: tuple[int, int, int]
    volume_affine: np.ndarray
    source: Mapping[str, Any] = field(default_factory=dict)
    subject: str | None = field(default=None, repr=False)
