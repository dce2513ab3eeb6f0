"""Pictures of one screened slice: a panel, and the layers that the viewer of its report shows."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import rgb2hex
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage as ndi
from skimage.measure import find_contours

from pathology_screen.files import replacing
from pathology_screen.geometry import spacing
from pathology_screen.outputs.charts import Axis
from pathology_screen.pages import data_uri
from pathology_screen.result import ScreenedSlice, ScreeningResult
from pathology_screen.space import load_brain_template, tissue_mask

OUTLINE = "#4de1ff"
"""Colour of the template's brain."""
INFERNO = colormaps["inferno"]
TILE, GAP, TOP, BAR = 256, 10, 60, 56
"""Pixels of a panel: side of a picture, between two, above them, and for the bar of colours."""
TINY = float(np.finfo(np.float32).tiny)

TIMES = 4
"""The viewer's colours end at so many pixel thresholds: they mean the same in every report."""
COLOURS = INFERNO.resampled(256)(np.linspace(0.12, 1, 256))[:, :3]
"""(256, 3), of 0 to `TIMES` thresholds."""
STOPS = [rgb2hex(COLOURS[i]) for i in np.linspace(0, 255, 12).astype(int)]
"""Hexadecimal colours from 0 to `TIMES` thresholds, evenly spaced."""
OPACITY = np.clip(np.linspace(0, TIMES, 256), 0, 1)
"""(256,): a map below the threshold lets the image shine through."""
SCALE_BAR = 50  # mm


def plane_in_words(one: ScreenedSlice) -> str:
    """Which slice was screened."""
    if one.fit is None or one.plane_mm is None:
        return "single slice, not registered"
    return f"plane z = {one.plane_mm:+g} mm of MNI152"


def template_on_slice(one: ScreenedSlice) -> np.ndarray | None:
    """Cut the template's brain at the plane and resample it onto a slice: (H, W), float32, above
    0.5 in the brain; None for a slice that was not registered. Where it does not lie on the brain
    of the scan, the registration is wrong."""
    if one.mni_affine is None:
        return None
    to_voxel = np.linalg.solve(load_brain_template().affine, one.mni_affine)
    shape = (*one.image.shape, 1)
    return ndi.affine_transform(_template(), to_voxel, output_shape=shape, order=1)[..., 0]


@cache
def _template() -> np.ndarray:
    """1 in the template's brain and its ventricles, 0 elsewhere, (197, 233, 189)."""
    mask = ndi.binary_fill_holes(tissue_mask(np.asarray(load_brain_template().dataobj)))
    return mask.astype(np.float32)


def save_panel(one: ScreenedSlice, threshold: float, title: str, path: Path) -> None:
    """Draw the input with the outline of the template, the pseudo-healthy reconstruction if there
    is one, the anomaly map over the input, translucent below the threshold, and the regions above
    it, as a PNG; the title is one line without patient data."""
    image, anomaly_map, template = one.image, one.anomaly_map, template_on_slice(one)
    scale = Axis([0, max(2 * threshold, float(anomaly_map.max())) or 1.0], TOP + TILE - 1, TOP)
    opacity = 0.8 * np.clip(anomaly_map / max(threshold, TINY), 0, 1)
    regions = anomaly_map > threshold
    tiles = {"input": _grey(image)}
    if one.reconstruction is not None:
        tiles["pseudo-healthy reconstruction"] = _grey(one.reconstruction)
    tiles["anomaly map"] = _blend(image, INFERNO(anomaly_map / scale.high)[..., :3], opacity)
    tiles["above threshold"] = _blend(image, np.array([1.0, 1.0, 0.0]), 0.55 * regions)
    step, count = TILE + GAP, len(tiles)
    panel = Image.new("RGB", (count * step + BAR + GAP, TOP + TILE + GAP))
    draw = ImageDraw.Draw(panel)
    small, large = ImageFont.load_default(12), ImageFont.load_default(15)
    draw.text((panel.width / 2, 17), title, "white", ImageFont.load_default(17), "mm")
    lefts = [GAP + number * step for number in range(count - 1)] + [GAP + (count - 1) * step + BAR]
    for left, (name, tile) in zip(lefts, tiles.items()):
        picture = Image.fromarray(_bytes(tile)).resize((TILE, TILE), Image.Resampling.BILINEAR)
        panel.paste(picture, (left, TOP))
        draw.text((left + TILE / 2, TOP - 12), name, "white", large, "mm")
    if template is not None:
        _draw_outline(draw, template, lefts[0], OUTLINE)
        draw.text((lefts[0] + TILE / 2, TOP + TILE - 5), "template's brain", OUTLINE, small, "mb")
    _draw_outline(draw, regions, lefts[-1], "red")
    for left in (lefts[0], lefts[-2]):
        for x, side in ((8, "R"), (TILE - 8, "L")):
            draw.text((left + x, TOP + TILE / 2), side, "yellow", large, "mm")
    bar = INFERNO(np.linspace(1, 0, TILE))[:, None, :3].repeat(BAR // 4, axis=1)
    panel.paste(Image.fromarray(_bytes(bar)), (lefts[-2] + step, TOP))
    for at, text in scale.ticks:
        draw.text((lefts[-2] + step + BAR // 4 + 4, at), text, "white", small, "lm")
    with replacing(path) as temporary:
        panel.save(temporary, "PNG", compress_level=1)


def _grey(image: np.ndarray) -> np.ndarray:
    """(H, W) -> (H, W, 3)."""
    return np.repeat(image[..., None], 3, axis=2)


def _blend(image: np.ndarray, colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Lay colours (H, W, 3), or one, over an image (H, W) with an opacity (H, W)."""
    return _grey(image) + opacity[..., None] * (colours - _grey(image))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _draw_outline(draw: ImageDraw.ImageDraw, mask: np.ndarray, left: int, colour: str) -> None:
    """Draw where a mask (H, W) crosses 0.5 over the tile that begins at `left`."""
    for line in find_contours(np.pad(mask, 1).astype(float), 0.5):
        places = (line - 0.5) * np.divide(TILE, mask.shape) + (TOP, left)
        draw.line([(float(x), float(y)) for y, x in places], colour, 1)


def make_viewer(result: ScreeningResult) -> dict[str, Any] | None:
    """Draw the slice of a result for `pages/report.html`; None where there is none.

    Pictures are data URIs, outlines SVG paths, of regions by label, as are their peaks (x, y), in
    tenths of a pixel, (0, 0) the corner; `colours` are evenly spaced from the first to the last of
    `limits`, values of the map at whole thresholds.
    """
    one, threshold = result.slice, result.pixel_threshold
    if one is None or threshold is None:
        return None
    template = template_on_slice(one)
    peaks = {}
    for region in result.regions:  # the centre of a pixel is at its half
        row, column = np.linalg.solve(one.affine, [*region.peak_mm, 1.0])[:2] + 0.5
        peaks[region.label] = round(10 * float(column)), round(10 * float(row))
    painted, shown = one.reconstruction, one.anomaly_map / (TIMES * threshold)
    return {
        "size": one.image.shape[0],
        "image": _png(one.image),
        "reconstruction": None if painted is None else _png(painted),
        "anomaly_map": _png(shown, COLOURS, transparency=_bytes(OPACITY).tobytes()),
        "template": None if template is None else _path(np.pad(template, 1), 0.5, -0.5),
        "outlines": _outlines(one.anomaly_map, one.labels, threshold),
        "peaks": peaks,
        "scale_bar": round(SCALE_BAR / float(spacing(one.affine)[1]), 2),
        "colours": STOPS,
        "limits": [times * threshold for times in range(TIMES + 1)],
    }


def _png(image: np.ndarray, colours: np.ndarray | None = None, **options: bytes) -> str:
    """Data URI of an image (H, W) in [0, 1], clipped, in 256 greys or colours (256, 3)."""
    picture, buffer = Image.fromarray(_bytes(image)), io.BytesIO()
    if colours is not None:
        picture.putpalette(_bytes(colours).tobytes())
    picture.save(buffer, "PNG", optimize=True, **options)
    return data_uri(buffer.getvalue())


def _outlines(anomaly_map: np.ndarray, labels: np.ndarray, threshold: float) -> dict[int, str]:
    """Trace where a map (H, W) crosses the threshold around each region, the labels (H, W) above 0:
    label -> SVG path."""
    padded_map, padded = np.pad(anomaly_map, 2), np.pad(labels, 2)
    found = {}
    for label, box in enumerate(ndi.find_objects(padded.astype(np.int32)), start=1):
        if box is None:
            continue
        around = tuple(slice(side.start - 1, side.stop + 1) for side in box)
        others = (padded_map[around] > threshold) & (padded[around] != label)
        values = np.where(others, 0, padded_map[around])
        corner = np.array([side.start for side in around]) - 1.5  # 2 of padding, half a pixel
        if path := _path(values, threshold, corner):
            found[label] = path
    return found


def _path(values: np.ndarray, level: float, corner: np.ndarray | float) -> str:
    """Closed SVG paths, x right and y down, where an image (H, W) at this corner (row, column)
    crosses a level."""
    path = ""
    for line in find_contours(values, level):
        points = np.rint(10 * (line + corner)[:-1, ::-1]).astype(int)
        steps = " ".join(f"{x} {y}" for x, y in np.diff(points, axis=0))
        path += f"M{points[0, 0]} {points[0, 1]}l{steps}z"
    return path
