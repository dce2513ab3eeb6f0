"""A result as DICOM, in the study and frame of reference of the scan: Parametric Map, Segmentation,
Structured Report and Secondary Capture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.config import disable_value_validation

from pathology_screen.errors import ConfigError
from pathology_screen.files import replacing
from pathology_screen.io.source import PATIENT_AND_STUDY, SourceSeries, read_source_series
from pathology_screen.outputs.dicom import images
from pathology_screen.outputs.dicom.maker import Maker
from pathology_screen.outputs.dicom.secondary_capture import make_secondary_capture
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
        for name, made in objects.items():
            images.copy(series.datasets[0], made, PATIENT_AND_STUDY)
            if name != "report.dcm":
                made.BodyPartExamined = "BRAIN"
        for name in NAMES:
            if name in objects:
                with replacing(folder / name) as temporary:
                    objects[name].save_as(temporary, enforce_file_format=True)
            else:
                (folder / name).unlink(missing_ok=True)
    return [folder / name for name in NAMES if name in objects]


def _objects(result: ScreeningResult, series: SourceSeries) -> dict[str, Dataset]:
    references, stack = images.reference_images(series), series.stack
    maker = Maker(result, series.datasets[0].SeriesInstanceUID)
    volume, labels, affine = result.map_volume, result.regions_volume, result.affine
    if volume is None or labels is None or stack is None:
        everything = images.references_to(series)
        return {"report.dcm": make_structured_report(references, everything, {}, maker)}
    same = volume.shape == stack.shape and affine is not None
    if not same or not np.allclose(affine, stack.affine, atol=1e-3):  # type: ignore[arg-type]
        raise ConfigError("the source is not the scan of this result: its size or position differs")
    cut = images.cut_slices(result, stack.shape)
    placed: dict[str, Any] = {"source_images": references}
    placed["plane_positions"] = images.positions_of(stack, cut)
    frames, label_frames = (
        np.ascontiguousarray(values[..., cut].transpose(2, 1, 0)) for values in (volume, labels)
    )
    upper = max(float(volume.max()), 2 * (result.pixel_threshold or 0.5))
    map_ = images.make_parametric_map(frames, upper, maker, **placed)
    made: dict[str, Dataset] = {"parametric_map.dcm": map_}
    if result.regions:
        regions = images.make_segmentation(label_frames, result.regions, maker, **placed)
        made["segmentation.dcm"] = regions
    shown = images.references_to(series, cut)
    return made | {
        "report.dcm": make_structured_report(references, shown, made, maker),
        "overlay.dcm": make_secondary_capture(references[0], shown, maker),
    }
