"""The inference tasks of MONAI Label: regions and anomaly map of one study, made by the
Screener."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.transform.writer import write_itk

from pathology_screen.errors import ConfigError, fault
from pathology_screen.label.model import Model
from pathology_screen.outputs.record import make_record
from pathology_screen.screening import ScreeningResult

MOST_LABELS = np.iinfo(np.uint8).max
"""Viewers ask for label volumes of 8 bits."""
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha")
"""Of the volumes that can be asked for."""


class ScreeningTask(InferTask):
    """Screen a study; what its volume shows is up to the subclass.

    Params of a request:
        plane_mm: z of another plane of MNI152 space, which is mapped and not judged; null by
        default.
        result_extension: of the volume, one of `EXTENSIONS`; ".nii.gz" by default.
        result_compress: whether an NRRD or MHA is compressed.

    Args:
        model: that screens.
        kind: of task, by which viewers list it.
        labels: name -> value in the volume.
        shown: what the volume shows, in words.
        config: further params, with their defaults.
    """

    def __init__(
        self,
        model: Model,
        kind: InferType,
        labels: dict[str, int],
        shown: str,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            kind, labels, 3, f"{shown} ({model.title})", {"plane_mm": None, **(config or {})}
        )
        self.model = model

    def is_valid(self) -> bool:
        """A model without weights is not offered, so always."""
        return True

    def get_path(self, validate: bool = True) -> str:
        """The weights in use, which MONAI Label offers for download."""
        return str(self.model.versions.active().weights)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Screen the study `request["image"]`, a path.

        Returns:
            The volume on the voxels of the study, a temporary file; and the record (see
            `make_record`), with `label_names` and the `weights_version` in use.

        Raises:
            HTTPException: 404 for an unknown study, 400 for a param that makes no sense, 422 with
                code, reason and hint where the scan is refused, 500 where the software failed.
        """
        try:
            return self._screen(request)
        except HTTPException:
            raise
        except ConfigError as error:
            raise HTTPException(400, str(error)) from error
        except Exception as error:  # what another package's error says may name the patient
            raise HTTPException(500, str(fault(error))) from None

    def _screen(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        extension = request.get("result_extension") or ".nii.gz"
        if extension not in EXTENSIONS:
            raise ConfigError(
                f"result_extension is one of {', '.join(EXTENSIONS)}, not {extension!r}"
            )
        plane = request.get("plane_mm")
        if plane is not None and not (isinstance(plane, int | float) and np.isfinite(plane)):
            raise ConfigError(f"plane_mm is a number of millimetres, not {plane!r}")
        if not request.get("image"):
            raise HTTPException(404, "there is no such study")
        version = self.model.versions.active().name
        result = self.model.screen(request["image"], plane)
        if result.map_volume is None or result.affine is None:
            raise HTTPException(422, result.reason)
        volume, names = self.volume(result, request)
        record = make_record(result, "") | {"label_names": names, "weights_version": version}
        del record["name"]  # the viewer knows which study it asked for
        return _write(
            volume, result.affine, extension, bool(request.get("result_compress"))
        ), record

    def volume(
        self, result: ScreeningResult, request: Mapping[str, Any]
    ) -> tuple[np.ndarray, dict[str, int]]:
        """What is shown of a result, (I, J, K), and the names of its labels."""
        raise NotImplementedError


class AnomalyRegions(ScreeningTask):
    """The regions above the pixel threshold: one label, or (param `numbered`) their numbers in the
    record."""

    def __init__(self, model: Model) -> None:
        super().__init__(
            model,
            InferType.SEGMENTATION,
            {"anomaly": 1},
            "Regions unlike healthy people",
            {"numbered": False},
        )

    def volume(
        self, result: ScreeningResult, request: Mapping[str, Any]
    ) -> tuple[np.ndarray, dict[str, int]]:
        """uint8; regions beyond the 255th, which have the lowest peaks, are merged with it."""
        numbers = np.asarray(result.regions_volume)
        if not request.get("numbered"):
            return (numbers > 0).astype(np.uint8), {"anomaly": 1}
        names = {
            f"region {label}": label
            for label in range(1, min(len(result.regions), MOST_LABELS) + 1)
        }
        return np.minimum(numbers, MOST_LABELS).astype(np.uint8), names


class AnomalyVolume(ScreeningTask):
    """The anomaly map."""

    def __init__(self, model: Model) -> None:
        super().__init__(
            model, InferType.OTHERS, {}, "Map of the differences from a pseudo-healthy brain"
        )

    def volume(
        self, result: ScreeningResult, request: Mapping[str, Any]
    ) -> tuple[np.ndarray, dict[str, int]]:
        """float32, zero outside the screened slice."""
        return np.asarray(result.map_volume), {}


def _write(volume: np.ndarray, affine: np.ndarray, extension: str, compress: bool) -> str:
    """Write a volume to a temporary file, which MONAI Label removes once it is sent."""
    handle, path = tempfile.mkstemp(suffix=extension)
    os.close(handle)
    if extension in (".nii", ".nii.gz"):  # by nibabel the affine is kept to the last digit
        image = nib.Nifti1Image(volume, affine)
        image.header.set_xyzt_units("mm")
        image.to_filename(path)
    else:
        write_itk(volume, path, affine, volume.dtype, compress)
    return path
