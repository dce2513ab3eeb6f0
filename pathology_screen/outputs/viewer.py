"""The screened slice of a scan as the viewer of its report shows it: layers over each other."""

import io
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import rgb2hex
from PIL import Image
from scipy.ndimage import find_objects
from skimage.measure import find_contours

from pathology_screen.geometry import spacing
from pathology_screen.outputs.figures import template_on_slice
from pathology_screen.pages import data_uri
from pathology_screen.result import ScreeningResult

TIMES = 4
"""The colours end at so many pixel thresholds: a colour means the same in every report."""
COLOURS = colormaps["inferno"].resampled(256)(np.linspace(0.12, 1, 256))[:, :3]
"""(256, 3), of 0 to `TIMES` thresholds."""
STOPS = [rgb2hex(COLOURS[i]) for i in np.linspace(0, 255, 12).astype(int)]
"""Hexadecimal colours from 0 to `TIMES` thresholds, evenly spaced."""
OPACITY = np.clip(np.linspace(0, TIMES, 256), 0, 1)
"""(256,): a map below the threshold lets the image shine through."""
SCALE_BAR = 50  # mm


def make_viewer(result: ScreeningResult) -> dict[str, Any] | None:
    """Draw the slice of a result; None where there is none.

    Returns:
        `size`, pixels per side; `image`, `reconstruction` (or None) and `anomaly_map` as data URIs;
        `template` (None for a slice that was not registered) and `outlines`, region -> SVG path;
        `peaks`, region -> (x, y); `scale_bar`, five centimetres in pixels; `colours`, evenly spaced
        from the first to the last of `limits`, values of the map at whole thresholds. Paths and
        points are in tenths of a pixel, (0, 0) the corner.
    """
    one, threshold = result.slice, result.pixel_threshold
    if one is None or threshold is None:
        return None
    template = template_on_slice(one)
    peaks = {}
    for region in result.regions:  # the centre of a pixel is at its half
        row, column = np.linalg.solve(one.affine, [*region.peak_mm, 1.0])[:2] + 0.5
        peaks[region.label] = round(10 * float(column)), round(10 * float(row))
    return {
        "size": one.image.shape[0],
        "image": grey_png(one.image),
        "reconstruction": None if one.reconstruction is None else grey_png(one.reconstruction),
        "anomaly_map": map_png(one.anomaly_map, threshold),
        "template": None if template is None else outline(template),
        "outlines": outlines(one.anomaly_map, one.labels, threshold),
        "peaks": peaks,
        "scale_bar": round(SCALE_BAR / float(spacing(one.affine)[1]), 2),
        "colours": STOPS,
        "limits": [times * threshold for times in range(TIMES + 1)],
    }


def grey_png(image: np.ndarray) -> str:
    """Data URI of an image (H, W) in [0, 1] in 256 greys; what lies outside is clipped."""
    return _png(Image.fromarray(_bytes(image)))


def map_png(anomaly_map: np.ndarray, threshold: float) -> str:
    """Data URI of an anomaly map (H, W) in `COLOURS`, translucent below the threshold."""
    picture = Image.fromarray(_bytes(anomaly_map / (TIMES * threshold)), mode="P")
    picture.putpalette(_bytes(COLOURS).tobytes())
    return _png(picture, transparency=_bytes(OPACITY).tobytes())


def outlines(anomaly_map: np.ndarray, labels: np.ndarray, threshold: float) -> dict[int, str]:
    """Trace where a map (H, W) crosses the threshold around each region, the labels (H, W) above 0.

    Returns:
        Label -> SVG path in tenths of a pixel: x right, y down, (0, 0) the corner of the picture.
    """
    padded_map, padded = np.pad(anomaly_map, 2), np.pad(labels, 2)
    found = {}
    for label, box in enumerate(find_objects(padded.astype(np.int32)), start=1):
        if box is None:
            continue
        around = tuple(slice(side.start - 1, side.stop + 1) for side in box)
        others = (padded_map[around] > threshold) & (padded[around] != label)
        values = np.where(others, 0, padded_map[around])
        corner = np.array([side.start for side in around]) - 1.5  # 2 of padding, half a pixel
        path = "".join(_path(line + corner) for line in find_contours(values, threshold))
        if path:
            found[label] = path
    return found


def outline(mask: np.ndarray) -> str:
    """Trace where an image (H, W) crosses 0.5, as an SVG path; see `outlines`."""
    return "".join(_path(line - 0.5) for line in find_contours(np.pad(mask, 1), 0.5))


def _path(line: np.ndarray) -> str:
    """A closed SVG path through points (row, column), (N, 2), the last of which is the first."""
    points = np.rint(10 * line[:-1, ::-1]).astype(int)
    steps = " ".join(f"{x} {y}" for x, y in np.diff(points, axis=0))
    return f"M{points[0, 0]} {points[0, 1]}l{steps}z"


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _png(picture: Image.Image, **options: bytes) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, **options)
    return data_uri(buffer.getvalue())
