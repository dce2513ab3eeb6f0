"""A picture of the scored slice with map and regions, for viewers that show no Parametric Map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DS

from pathology_screen.geometry import DISPLAY_AXES, spacing
from pathology_screen.outputs.dicom.maker import BODY_PART, Maker
from pathology_screen.outputs.dicom.source_images import Reference
from pathology_screen.screening.result import ScreeningResult

SERIES_NUMBER = 9004
LONGER_SIDE = 768
DPI = 96
NUMBERED = 12
"""Most regions that get their number."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An axial picture, rows to posterior and columns to the patient's left.

    Attributes:
        pixels: (rows, columns, 3) uint8.
        affine: (4, 4), row, column and slice -> LPS+ mm.
        level: counted from inferior.
    """

    pixels: np.ndarray
    affine: np.ndarray
    level: int


def make_secondary_capture(image: Dataset, picture: Picture, shown: Sequence[Reference], maker: Maker) -> SCImage:
    """Make the Secondary Capture in the source's frame of reference.

    Args:
        image: one of the source, see `reference_images`.
        picture: see `draw_overlay`.
        shown: the source images that the picture lies in or crosses, see `references_at`.
        maker: of the result.
    """
    row_step, column_step, _ = spacing(picture.affine)
    made = SCImage.from_ref_dataset(
        image,
        picture.pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        pixel_spacing=(row_step, column_step),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **maker.instance(SERIES_NUMBER, "picture of the anomaly map"),
    )
    made.FrameOfReferenceUID = image.FrameOfReferenceUID
    made.PositionReferenceIndicator = image.get("PositionReferenceIndicator")
    directions = np.concatenate([picture.affine[:3, 1] / column_step, picture.affine[:3, 0] / row_step])
    made.ImageOrientationPatient = [DS(cosine, auto_format=True) for cosine in directions]
    made.ImagePositionPatient = [DS(mm, auto_format=True) for mm in picture.affine[:3, 3]]
    made.BodyPartExamined = BODY_PART
    made.BurnedInAnnotation = "NO"  # the burned-in text tells nothing of the patient
    made.DerivationDescription = "Slice with anomaly map and regions drawn over it; research use only"
    made.SourceImageSequence = [_source(reference) for reference in shown]
    return made


def _source(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
    if reference.frame_numbers is not None:
        item.ReferencedFrameNumber = reference.frame_numbers
    purpose = CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def draw_overlay(result: ScreeningResult, voxels: np.ndarray) -> Picture:
    """Draw the slice whose score counts, on the voxels of the scan, with the map, the outlines of the regions and their
    numbers.

    Args:
        result: with a map.
        voxels: (I, J, K) of the scan.
    """
    assert result.affine is not None and result.map_volume is not None and result.regions_volume is not None
    scores = [one.score for one in result.slices]
    shown = result.slices[int(np.argmax(scores)) if result.scored_slice is None else result.scored_slice]
    turn = ornt_transform(io_orientation(result.affine), axcodes2ornt(DISPLAY_AXES))
    slice_, map_, labels = (
        apply_orientation(volume, turn)[..., shown.level]
        for volume in (voxels, result.map_volume, result.regions_volume)
    )
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ result.affine @ inv_ornt_aff(turn, voxels.shape)
    affine[:3, 3] += shown.level * affine[:3, 2]
    rows_mm, columns_mm = np.multiply(slice_.shape, spacing(affine)[:2])
    height, width = (round(side * LONGER_SIDE / max(rows_mm, columns_mm)) for side in (rows_mm, columns_mm))
    caption = f"level {shown.level}   score {shown.score:.4g}"
    if result.image_threshold is not None:
        caption += f" (threshold {result.image_threshold:.4g})"
    pixels = _draw(slice_, map_, labels, result.pixel_threshold or 0.0, caption, height, width)
    return Picture(pixels, _resized(affine, slice_.shape, pixels.shape), shown.level)


def _resized(affine: np.ndarray, old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """The affine after resampling the first two axes, with the same outer edges."""
    scale = np.diag([old[0] / new[0], old[1] / new[1], 1.0, 1.0])
    scale[:2, 3] = np.diag(scale)[:2] / 2 - 0.5
    return affine @ scale


def _draw(
    image: np.ndarray, map_: np.ndarray, labels: np.ndarray, threshold: float, caption: str, height: int, width: int
) -> np.ndarray:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    low, high = np.percentile(image, (1, 99.5))
    view: dict[str, Any] = {"aspect": "auto", "interpolation": "bilinear"}
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, **view)
    tiny = np.finfo(np.float32).tiny
    opacity = np.clip(map_ / max(threshold, tiny), 0, 1) * 0.6
    highest = max(2 * threshold, float(map_.max()), float(tiny))
    heat = axes.imshow(map_, cmap="inferno", vmin=0, vmax=highest, alpha=opacity, **view)
    if labels.any():
        axes.contour(labels > 0, levels=[0.5], colors="cyan", linewidths=1.0)
    for number in np.unique(labels[labels > 0])[:NUMBERED]:
        row, column = np.argwhere(labels == number).mean(axis=0)
        axes.text(column, row, str(number), color="white", fontsize=11, ha="center", va="center", weight="bold")
    bar = figure.colorbar(heat, cax=axes.inset_axes((0.95, 0.3, 0.015, 0.4)))
    bar.ax.yaxis.set_ticks_position("left")
    bar.ax.tick_params(colors="white", labelsize=8)
    text: dict[str, Any] = {"color": "yellow", "fontsize": 11, "transform": axes.transAxes}
    axes.text(0.02, 0.98, "RESEARCH USE ONLY - NOT FOR DIAGNOSIS", va="top", **text)
    axes.text(0.02, 0.02, caption, va="bottom", **text)
    axes.text(0.02, 0.5, "R", va="center", **text)
    axes.text(0.98, 0.5, "L", va="center", ha="right", **text)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
