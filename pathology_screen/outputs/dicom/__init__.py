"""A result as DICOM, in the study and frame of reference of the scan: Parametric Map, Segmentation,
Structured Report and Secondary Capture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.config import disable_value_validation

from pathology_screen.errors import ConfigError
from pathology_screen.files import replacing
from pathology_screen.io.source import SourceSeries, read_source_series
from pathology_screen.outputs.dicom.maker import Maker
from pathology_screen.outputs.dicom.parametric_map import make_parametric_map
from pathology_screen.outputs.dicom.secondary_capture import draw_overlay, make_secondary_capture
from pathology_screen.outputs.dicom.segmentation import make_segmentation
from pathology_screen.outputs.dicom.source_images import (
    cut_slices,
    frames_of,
    identify,
    positions_of,
    reference_images,
    references_to,
)
from pathology_screen.outputs.dicom.structured_report import make_structured_report
from pathology_screen.result import ScreeningResult

__all__ = ["NAMES", "write_dicom"]

NAMES = ("parametric_map.dcm", "segmentation.dcm", "report.dcm", "overlay.dcm")


def write_dicom(
    result: ScreeningResult,
    source: str | Path | Sequence[str | Path],
    folder: Path,
    series_uid: str | None = None,
) -> list[Path]:
    """Write a result as DICOM objects in the study of its scan.

    A result without a map (a refused scan) has only a report, one without regions no segmentation.
    What an earlier call left under the other names is removed. UIDs are new with every call; the
    tracking UIDs of the report and the segments are those of the result.

    Args:
        result: of the scan.
        source: the DICOM scan, as it was given to `io.read_scan`.
        folder: of the objects, `NAMES`; made if missing.
        series_uid: SeriesInstanceUID of the scan, where the source holds several series and the
            result does not tell.

    Returns:
        The files that were written.

    Raises:
        ConfigError: if the source is not DICOM or not the scan of this result.
        InputError: if the source cannot be read.
    """
    if result.source.get("format", "dicom") != "dicom":
        raise ConfigError("DICOM results need a DICOM source: the scan was a NIfTI file")
    series_uid = series_uid or result.source.get("series_uid") or None
    with (
        disable_value_validation()
    ):  # patient and study are written as they are, and no warning repeats them
        series = read_source_series(source, series_uid, stacked=result.map_volume is not None)
        objects = _objects(result, series)
        for made in objects.values():
            identify(made, series)
        for name in NAMES:
            if name in objects:
                with replacing(folder / name) as temporary:
                    objects[name].save_as(temporary, enforce_file_format=True)
            else:
                (folder / name).unlink(missing_ok=True)
    return [folder / name for name in NAMES if name in objects]


def _objects(result: ScreeningResult, series: SourceSeries) -> dict[str, Dataset]:
    images, maker = reference_images(series), Maker(result, series.datasets[0].SeriesInstanceUID)
    if result.map_volume is None or result.regions_volume is None or series.stack is None:
        return {
            "report.dcm": make_structured_report(
                images, references_to(series), None, None, result, maker
            )
        }
    _check_same(result, series)
    cut = cut_slices(result, series.stack.shape)
    positions, references = positions_of(series.stack, cut), references_to(series, cut)
    objects: dict[str, Dataset] = {}
    upper = max(float(result.map_volume.max()), 2 * (result.pixel_threshold or 0.5))
    map_ = make_parametric_map(images, frames_of(result.map_volume, cut), positions, upper, maker)
    regions = None
    if result.regions:
        frames = frames_of(result.regions_volume, cut)
        regions = make_segmentation(images, frames, positions, result.regions, maker)
        objects["segmentation.dcm"] = regions
    return objects | {
        "parametric_map.dcm": map_,
        "report.dcm": make_structured_report(images, references, map_, regions, result, maker),
        "overlay.dcm": make_secondary_capture(images[0], draw_overlay(result), references, maker),
    }


def _check_same(result: ScreeningResult, series: SourceSeries) -> None:
    assert result.map_volume is not None and result.affine is not None and series.stack is not None
    if result.map_volume.shape != series.stack.shape or not np.allclose(
        result.affine, series.stack.affine, atol=1e-3
    ):
        raise ConfigError("the source is not the scan of this result: its size or position differs")
