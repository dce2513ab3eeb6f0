"""A picture of the screened slice with map and regions, for viewers that show no Parametric Map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DS
from scipy import ndimage as ndi

from pathology_screen.geometry import spacing
from pathology_screen.outputs.dicom.maker import BODY_PART, Maker
from pathology_screen.outputs.dicom.source_images import Reference
from pathology_screen.outputs.figures import OUTLINE
from pathology_screen.outputs.template_outline import template_on_slice
from pathology_screen.outputs.words import plane_in_words
from pathology_screen.result import ScreeningResult

SERIES_NUMBER = 9004
LONGER_SIDE = 768
DPI = 96
NUMBERED = 12
"""Most regions that get their number."""
REGION = "#9dff6e"


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a plane through the patient, rows to posterior and columns to the patient's
    left.

    Attributes:
        pixels: (rows, columns, 3) uint8.
        affine: (4, 4), (row, column, 0, 1) -> LPS+ mm; its first two columns are perpendicular.
    """

    pixels: np.ndarray
    affine: np.ndarray


def make_secondary_capture(
    image: Dataset, picture: Picture, shown: Sequence[Reference], maker: Maker
) -> SCImage:
    """Make the Secondary Capture in the source's frame of reference.

    Args:
        image: one of the source, see `reference_images`.
        picture: see `draw_overlay`.
        shown: the source images that the plane cuts, see `references_to`.
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
    directions = np.concatenate(
        [picture.affine[:3, 1] / column_step, picture.affine[:3, 0] / row_step]
    )
    made.ImageOrientationPatient = [DS(cosine, auto_format=True) for cosine in directions]
    made.ImagePositionPatient = [DS(mm, auto_format=True) for mm in picture.affine[:3, 3]]
    made.BodyPartExamined = BODY_PART
    made.BurnedInAnnotation = "NO"  # the burned-in text tells nothing of the patient
    made.DerivationDescription = (
        "Slice with anomaly map and regions drawn over it; research use only"
    )
    made.SourceImageSequence = [_source(reference) for reference in shown]
    return made


def _source(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
        reference.sop_class_uid,
        reference.sop_instance_uid,
    )
    if reference.frame_numbers is not None:
        item.ReferencedFrameNumber = reference.frame_numbers
    purpose = CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def draw_overlay(result: ScreeningResult) -> Picture:
    """Draw the screened slice with the map, the outlines of the regions and their numbers, and the
    outline of the template's brain.

    Args:
        result: with a slice.
    """
    one = result.slice
    assert one is not None
    affine, shape = upright(one.affine, one.image.shape)
    to_slice = np.linalg.solve(one.affine, affine)
    to_slice = to_slice[:2, [0, 1, 3]]

    def resampled(values: np.ndarray, order: int) -> np.ndarray:
        return ndi.affine_transform(values, to_slice[:, :2], to_slice[:, 2], shape, order=order)

    template = template_on_slice(one)
    caption = f"{plane_in_words(one)}   score {one.score:.4g}"
    if result.image_threshold is not None:
        caption += f" (threshold {result.image_threshold:.4g})"
    pixels = _draw(
        resampled(one.image, 1),
        resampled(one.anomaly_map, 1),
        resampled(one.labels, 0),
        None if template is None else resampled(template, 1),
        result.pixel_threshold or 0.0,
        caption,
    )
    return Picture(pixels, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def upright(affine: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, tuple[int, int]]:
    """A grid of square pixels in the plane of a slice, whose own pixels may be skewed: registration
    is affine.

    Args:
        affine: (4, 4), (row, column, 0, 1) of the slice -> mm.
        shape: (H, W) of the slice.

    Returns:
        The affine of the grid, whose columns run along those of the slice and whose longer side has
        `LONGER_SIDE` pixels; and its shape. It holds all of the slice.
    """
    across = affine[:3, 1] / np.linalg.norm(affine[:3, 1])
    down = affine[:3, 0] - affine[:3, 0] @ across * across
    axes = np.stack([down / np.linalg.norm(down), across], axis=1)  # (3, 2)
    corners = np.array(
        [(r, c, 0, 1) for r in (-0.5, shape[0] - 0.5) for c in (-0.5, shape[1] - 0.5)]
    ).T
    inside = axes.T @ (affine @ corners)[:3]  # (2, 4) mm
    first, sides = inside.min(axis=1), np.ptp(inside, axis=1)
    step = sides.max() / LONGER_SIDE
    rows, columns = (max(round(side / step), 1) for side in sides)
    off_plane = affine[:3, 3] - axes @ (axes.T @ affine[:3, 3])
    grid = np.eye(4)
    grid[:3, :2], grid[:3, 2] = step * axes, np.cross(axes[:, 0], axes[:, 1])
    grid[:3, 3] = off_plane + axes @ (first + step / 2)
    return grid, (rows, columns)


def _draw(
    image: np.ndarray,
    map_: np.ndarray,
    labels: np.ndarray,
    template: np.ndarray | None,
    threshold: float,
    caption: str,
) -> np.ndarray:
    height, width = image.shape
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    view: dict[str, Any] = {"aspect": "auto", "interpolation": "bilinear"}
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, **view)
    tiny = np.finfo(np.float32).tiny
    opacity = np.clip(map_ / max(threshold, tiny), 0, 1) * 0.6
    highest = max(2 * threshold, float(map_.max()), float(tiny))
    heat = axes.imshow(map_, cmap="inferno", vmin=0, vmax=highest, alpha=opacity, **view)
    if template is not None:
        axes.contour(template, levels=[0.5], colors=OUTLINE, linewidths=0.8)
    if labels.any():
        axes.contour(labels > 0, levels=[0.5], colors=REGION, linewidths=1.0)
    for number in np.unique(labels[labels > 0])[:NUMBERED]:
        row, column = np.argwhere(labels == number).mean(axis=0)
        axes.text(
            column,
            row,
            str(number),
            color="white",
            fontsize=11,
            ha="center",
            va="center",
            weight="bold",
        )
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
