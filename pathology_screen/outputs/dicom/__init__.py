"""A result as DICOM, in the study and frame of reference of the scan: Parametric Map, Segmentation,
Structured Report and Secondary Capture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.config import disable_value_validation

from pathology_screen.errors import ConfigError
from pathology_screen.files import replacing
from pathology_screen.io.source import SourceSeries, read_source_series
from pathology_screen.outputs.dicom import source_images
from pathology_screen.outputs.dicom.images import make_parametric_map, make_segmentation
from pathology_screen.outputs.dicom.maker import Maker
from pathology_screen.outputs.dicom.secondary_capture import draw_overlay, make_secondary_capture
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
    with disable_value_validation():  # patient and study as they are, repeated by no warning
        series = read_source_series(source, series_uid, stacked=result.map_volume is not None)
        objects = _objects(result, series)
        for made in objects.values():
            source_images.identify(made, series)
        for name in NAMES:
            if name in objects:
                with replacing(folder / name) as temporary:
                    objects[name].save_as(temporary, enforce_file_format=True)
            else:
                (folder / name).unlink(missing_ok=True)
    return [folder / name for name in NAMES if name in objects]


def _objects(result: ScreeningResult, series: SourceSeries) -> dict[str, Dataset]:
    images, stack = source_images.reference_images(series), series.stack
    maker = Maker(result, series.datasets[0].SeriesInstanceUID)
    volume, labels = result.map_volume, result.regions_volume
    if volume is None or labels is None or stack is None:
        all_ = source_images.references_to(series)
        return {"report.dcm": make_structured_report(images, all_, None, None, result, maker)}
    same = volume.shape == stack.shape and result.affine is not None
    if not same or not np.allclose(result.affine, stack.affine, atol=1e-3):  # type: ignore[arg-type]
        raise ConfigError("the source is not the scan of this result: its size or position differs")
    cut = source_images.cut_slices(result, stack.shape)
    positions = source_images.positions_of(stack, cut)
    references = source_images.references_to(series, cut)
    upper = max(float(volume.max()), 2 * (result.pixel_threshold or 0.5))
    frames = source_images.frames_of(volume, cut)
    map_, regions = make_parametric_map(images, frames, positions, upper, maker), None
    objects: dict[str, Dataset] = {"parametric_map.dcm": map_}
    if result.regions:
        frames = source_images.frames_of(labels, cut)
        regions = make_segmentation(images, frames, positions, result.regions, maker)
        objects["segmentation.dcm"] = regions
    return objects | {
        "report.dcm": make_structured_report(images, references, map_, regions, result, maker),
        "overlay.dcm": make_secondary_capture(images[0], draw_overlay(result), references, maker),
    }
