"""Strict readers: one scan as a `Scan`, or an `InputError` that says why it cannot be read
faithfully."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.io.discover import bids_labels, is_nifti, safe_names
from pathology_screen.io.file import File
from pathology_screen.io.find import Discovery, FoundScan, discover, find_scans, source_id
from pathology_screen.io.image import is_png, read_png
from pathology_screen.io.inputs import input_files
from pathology_screen.io.nifti import read_nifti
from pathology_screen.io.scan import Scan

__all__ = [
    "Discovery",
    "FoundScan",
    "Scan",
    "bids_labels",
    "discover",
    "find_scans",
    "read_scan",
    "safe_names",
    "source_id",
]


def read_scan(
    path: str | Path | Sequence[str | Path],
    *,
    series_uid: str | None = None,
    axial_slice: bool = False,
    level: str | None = None,
    axes: str | None = None,
    pixel_mm: float | None = None,
) -> Scan:
    """Read one scan.

    Args:
        path: a NIfTI file, a DICOM file, or a PNG file of one axial slice; or a folder (read at any
            depth), a .zip archive or a list of files that holds DICOM files or one NIfTI or PNG
            file.
        series_uid: SeriesInstanceUID of the series to read; needed where the DICOM files belong to
            several.
        axial_slice: declares an image of one slice as axial; otherwise one slice alone is refused.
        level: "middle" allows reading only the middle axial slice, which is much faster: of n
            slices from inferior to superior number n // 2, counted from 0. A DICOM series whose
            slices are closer to coronal or sagittal is read whole all the same. The geometry of the
            whole is checked in any case; the pixels, of what was read.
        axes, pixel_mm: see `read_png`; of PNG files alone, for all others say it themselves.

    Returns:
        The whole volume, or the part of it that `level` asks for.

    Raises:
        InputError: the scan cannot be read faithfully; its `code` says why.
        ConfigError: an unknown level, `axes` or `pixel_mm` of a file that is no PNG, or a DICOM
            file where the packages that read DICOM are not installed.
    """
    if level not in (None, "middle"):
        raise ConfigError(f'level is "middle" or None, not {level!r}')
    with input_files(path) as files:
        if len(files) == 1 and is_png(files[0]):
            return read_png(files[0], axes=axes, pixel_mm=pixel_mm)
        if axes is not None or pixel_mm is not None:
            raise ConfigError(
                "axes and pixel_mm are options of PNG files; NIfTI and DICOM files state them"
            )
        return _read_files(files, series_uid=series_uid, axial_slice=axial_slice, level=level)


def _read_files(
    files: Sequence[File], *, series_uid: str | None, axial_slice: bool, level: str | None
) -> Scan:
    if _is_one_nifti(files):
        if series_uid is not None:
            raise InputError("series_not_found", "it is a NIfTI file")
        return read_nifti(files[0], axial_slice=axial_slice, level=level)
    if series_uid is None and any(is_nifti(file) for file in files):
        hint = "Pass it by its own path; of an archive, unpack it first"
        raise InputError("several_series", f"{len(files)} files, NIfTI among them", hint)
    return _dicom().read_dicom(files, series_uid=series_uid, axial_slice=axial_slice, level=level)


def _is_one_nifti(files: Sequence[File]) -> bool:
    return len(files) == 1 and is_nifti(files[0])


def _dicom() -> ModuleType:
    try:
        from pathology_screen.io import dicom
    except ImportError as error:
        raise ConfigError(
            "DICOM needs pydicom and highdicom: pip install pathology-screen[dicom]"
        ) from error
    return dicom
