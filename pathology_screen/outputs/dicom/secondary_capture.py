"""A picture of the screened slice with map and regions, for viewers that show no Parametric Map."""

from collections.abc import Sequence
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
from pathology_screen.outputs.dicom.images import Reference
from pathology_screen.outputs.dicom.maker import Maker
from pathology_screen.outputs.figures import OUTLINE, TINY, plane_in_words, template_on_slice
from pathology_screen.result import ScreenedSlice, ScreeningResult

SERIES_NUMBER = 9004
LONGER_SIDE = 768
DPI = 96
NUMBERED = 12
"""Most regions that get their number."""
REGION = "#9dff6e"


def make_secondary_capture(image: Dataset, shown: Sequence[Reference], maker: Maker) -> SCImage:
    """Make the Secondary Capture of a result's slice, in the frame of reference of `image`, one of
    `reference_images`; `shown` are the source images that the plane cuts."""
    one = maker.result.slice
    assert one is not None
    affine, shape = upright(one.affine, one.image.shape)
    picture = _draw(maker.result, one, affine, shape)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # of LPS+ mm
    row_step, column_step, _ = spacing(affine)
    made = SCImage.from_ref_dataset(
        image,
        picture,
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
    directions = [*affine[:3, 1] / column_step, *affine[:3, 0] / row_step]
    made.ImageOrientationPatient = [DS(cosine, auto_format=True) for cosine in directions]
    made.ImagePositionPatient = [DS(mm, auto_format=True) for mm in affine[:3, 3]]
    made.BurnedInAnnotation = "NO"  # the burned-in text tells nothing of the patient
    told = "Slice with anomaly map and regions drawn over it; research use only"
    made.DerivationDescription = told
    made.SourceImageSequence = []
    for sop_class_uid, sop_instance_uid, frames in shown:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        if frames is not None:
            item.ReferencedFrameNumber = frames
        purpose = CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
        item.PurposeOfReferenceCodeSequence = [purpose]
        made.SourceImageSequence.append(item)
    return made


def _draw(
    result: ScreeningResult, one: ScreenedSlice, affine: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """The slice with the map, the outlines of the regions and their numbers, and the outline of the
    template's brain, on a grid of this affine and shape: (rows, columns, 3) uint8."""
    to_slice = np.linalg.solve(one.affine, affine)[:2, [0, 1, 3]]

    def resampled(values: np.ndarray, order: int = 1) -> np.ndarray:
        return ndi.affine_transform(values, to_slice[:, :2], to_slice[:, 2], shape, order=order)

    figure = Figure(figsize=(shape[1] / DPI, shape[0] / DPI), dpi=DPI, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    view: dict[str, Any] = {"aspect": "auto", "interpolation": "bilinear"}
    axes.imshow(resampled(one.image), cmap="gray", vmin=0, vmax=1, **view)
    anomaly_map, threshold = resampled(one.anomaly_map), max(result.pixel_threshold or 0.0, TINY)
    view |= {"cmap": "inferno", "vmin": 0, "vmax": max(2 * threshold, float(anomaly_map.max()))}
    heat = axes.imshow(anomaly_map, alpha=0.6 * np.clip(anomaly_map / threshold, 0, 1), **view)
    template, labels = template_on_slice(one), resampled(one.labels, 0)
    if template is not None:
        axes.contour(resampled(template), levels=[0.5], colors=OUTLINE, linewidths=0.8)
    if labels.any():
        axes.contour(labels > 0, levels=[0.5], colors=REGION, linewidths=1.0)
    style: dict[str, Any] = {"color": "white", "fontsize": 11, "weight": "bold"}
    for number in np.unique(labels[labels > 0])[:NUMBERED]:
        row, column = np.argwhere(labels == number).mean(axis=0)
        axes.text(column, row, str(number), ha="center", va="center", **style)
    bar = figure.colorbar(heat, cax=axes.inset_axes((0.95, 0.3, 0.015, 0.4)))
    bar.ax.yaxis.set_ticks_position("left")
    bar.ax.tick_params(colors="white", labelsize=8)
    caption = f"{plane_in_words(one)}   score {one.score:.4g}"
    if result.image_threshold is not None:
        caption += f" (threshold {result.image_threshold:.4g})"
    text: dict[str, Any] = {"color": "yellow", "fontsize": 11, "transform": axes.transAxes}
    axes.text(0.02, 0.98, "RESEARCH USE ONLY - NOT FOR DIAGNOSIS", va="top", **text)
    axes.text(0.02, 0.02, caption, va="bottom", **text)
    axes.text(0.02, 0.5, "R", va="center", **text)
    axes.text(0.98, 0.5, "L", va="center", ha="right", **text)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def upright(affine: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, tuple[int, int]]:
    """A grid of square pixels that holds a slice of this `affine` and `shape`, whose own pixels may
    be skewed, for registration is affine: its affine, (row, column, 0, 1) -> mm, with columns along
    those of the slice; and its shape, the longer side of `LONGER_SIDE` pixels."""
    across = affine[:3, 1] / np.linalg.norm(affine[:3, 1])
    down = affine[:3, 0] - affine[:3, 0] @ across * across
    axes = np.stack([down / np.linalg.norm(down), across], axis=1)  # (3, 2)
    edges = [(-0.5, side - 0.5) for side in shape]
    corners = np.array([(row, column, 0, 1) for row in edges[0] for column in edges[1]]).T
    inside = axes.T @ (affine @ corners)[:3]  # (2, 4) mm
    first, sides = inside.min(axis=1), np.ptp(inside, axis=1)
    step = sides.max() / LONGER_SIDE
    rows, columns = (max(round(side / step), 1) for side in sides)
    off_plane = affine[:3, 3] - axes @ (axes.T @ affine[:3, 3])
    grid = np.eye(4)
    grid[:3, :2], grid[:3, 2] = step * axes, np.cross(axes[:, 0], axes[:, 1])
    grid[:3, 3] = off_plane + axes @ (first + step / 2)
    return grid, (rows, columns)
