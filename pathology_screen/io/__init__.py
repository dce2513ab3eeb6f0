"""Strict readers: one scan as a `Scan`, or an `InputError` that says why not."""

from collections.abc import Sequence
from pathlib import Path

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.io.file import dicom_packages, input_files, is_nifti
from pathology_screen.io.find import (
    Discovery,
    FoundScan,
    bids_labels,
    discover,
    safe_names,
    source_id,
)
from pathology_screen.io.nifti import read_nifti
from pathology_screen.io.png import read_png
from pathology_screen.io.scan import Scan

__all__ = [
    "Discovery",
    "FoundScan",
    "Scan",
    "bids_labels",
    "discover",
    "read_scan",
    "safe_names",
    "source_id",
]


def read_scan(
    path: str | Path | Sequence[str | Path],
    *,
    series_uid: str | None = None,
    axial_slice: bool = False,
    axes: str | None = None,
    pixel_mm: float | None = None,
) -> Scan:
    """Read one scan.

    Args:
        path: a NIfTI file, a DICOM file, or a PNG file of one axial slice; or a folder (read at any
            depth), a .zip archive or a list that holds DICOM files or one NIfTI or PNG file.
        series_uid: SeriesInstanceUID to read; needed where the files belong to several.
        axial_slice: declares an image of one slice as axial; otherwise one slice alone is refused.
        axes: of a PNG, "PLS" where its columns run to the patient's left (default), "PRS" to the
            right; its rows run from anterior to posterior.
        pixel_mm: of a PNG, the distance between neighbouring pixels; default 1 mm.

    Raises:
        InputError: the scan cannot be read faithfully; its `code` says why.
        ConfigError: `axes` or `pixel_mm` make no sense, or are given for a file that is no PNG; or
            a DICOM file where the packages that read DICOM are not installed.

    >>> import tempfile
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp(), "slice.png")
    >>> Image.linear_gradient("L").save(path)
    >>> scan = read_scan(path, pixel_mm=0.5)
    >>> scan.voxels.shape, scan.voxels.max(), scan.source["format"]
    ((256, 256, 1), np.float32(255.0), 'png')
    """
    with input_files(path) as files:
        if len(files) == 1 and files[0].name.lower().endswith(".png"):
            return read_png(files[0], axes=axes, pixel_mm=pixel_mm)
        if axes is not None or pixel_mm is not None:
            state = "axes and pixel_mm are options of PNG files; NIfTI and DICOM files state them"
            raise ConfigError(state)
        if len(files) == 1 and is_nifti(files[0]):
            if series_uid is not None:
                raise InputError("series_not_found", "it is a NIfTI file")
            return read_nifti(files[0], axial_slice=axial_slice)
        if series_uid is None and any(is_nifti(file) for file in files):
            hint = "Pass it by its own path; of an archive, unpack it first"
            raise InputError("several_series", f"{len(files)} files, NIfTI among them", hint)
        with dicom_packages():
            from pathology_screen.io.dicom import read_dicom
        return read_dicom(files, series_uid=series_uid, axial_slice=axial_slice)
