"""Pictures of one screened slice, and the brain of the template on it."""

from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage as ndi
from skimage.measure import find_contours

from pathology_screen.files import replacing
from pathology_screen.outputs.charts import Axis
from pathology_screen.result import ScreenedSlice
from pathology_screen.space import load_brain_template, tissue_mask

OUTLINE = "#4de1ff"
"""Colour of the template's brain."""
INFERNO = colormaps["inferno"]
TILE, GAP, TOP, BAR = 256, 10, 60, 56
"""Pixels of a panel: side of a picture, between two, above them, and for the bar of colours."""
TINY = float(np.finfo(np.float32).tiny)


def plane_in_words(one: ScreenedSlice) -> str:
    """Which slice was screened."""
    if one.fit is None or one.plane_mm is None:
        return "single slice, not registered"
    return f"plane z = {one.plane_mm:+g} mm of MNI152"


def template_on_slice(one: ScreenedSlice) -> np.ndarray | None:
    """Cut the template's brain at the plane and resample it onto a slice: where it does not lie on
    the brain of the scan, the registration is wrong.

    Returns:
        (H, W), float32, above 0.5 in the brain; None for a slice that was not registered.
    """
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


def save_panel(
    image: np.ndarray,
    reconstruction: np.ndarray | None,
    anomaly_map: np.ndarray,
    threshold: float,
    title: str,
    path: Path,
    template: np.ndarray | None = None,
) -> None:
    """Draw input with the outline of the template, pseudo-healthy reconstruction, anomaly map over
    the input, and the regions where it exceeds the threshold, as a PNG.

    Args:
        image: (H, W) in [0, 1], rows to posterior, columns to the patient's left.
        reconstruction: likewise; None for a method that does not reconstruct.
        anomaly_map, threshold: (H, W), at least 0; and its limit. The map is translucent below it.
        title, path: one line without patient data; where the picture is written.
        template: see `template_on_slice`.
    """
    highest = max(2 * threshold, float(anomaly_map.max())) or 1.0
    scale = Axis.around([0, highest], TOP + TILE - 1, TOP)
    opacity = 0.8 * np.clip(anomaly_map / max(threshold, TINY), 0, 1)
    regions = anomaly_map > threshold
    tiles = {"input": _grey(image)}
    if reconstruction is not None:
        tiles["pseudo-healthy reconstruction"] = _grey(reconstruction)
    tiles["anomaly map"] = _blend(image, INFERNO(anomaly_map / scale.high)[..., :3], opacity)
    tiles["above threshold"] = _blend(image, np.array([1.0, 1.0, 0.0]), 0.55 * regions)
    step, count = TILE + GAP, len(tiles)
    panel = Image.new("RGB", (count * step + BAR + GAP, TOP + TILE + GAP))
    draw, small = ImageDraw.Draw(panel), ImageFont.load_default(12)
    draw.text((panel.width / 2, 17), title, "white", ImageFont.load_default(17), "mm")
    lefts = [GAP + number * step for number in range(count - 1)] + [GAP + (count - 1) * step + BAR]
    for left, (name, tile) in zip(lefts, tiles.items()):
        picture = Image.fromarray(np.rint(255 * np.clip(tile, 0, 1)).astype(np.uint8))
        panel.paste(picture.resize((TILE, TILE), Image.Resampling.BILINEAR), (left, TOP))
        draw.text((left + TILE / 2, TOP - 12), name, "white", ImageFont.load_default(15), "mm")
    if template is not None:
        _outline(draw, template, lefts[0], OUTLINE)
        draw.text((lefts[0] + TILE / 2, TOP + TILE - 5), "template's brain", OUTLINE, small, "mb")
    _outline(draw, regions, lefts[-1], "red")
    for left in (lefts[0], lefts[-2]):
        for x, side in ((8, "R"), (TILE - 8, "L")):
            draw.text((left + x, TOP + TILE / 2), side, "yellow", ImageFont.load_default(15), "mm")
    bar = INFERNO(np.linspace(1, 0, TILE))[:, None, :3].repeat(BAR // 4, axis=1)
    panel.paste(Image.fromarray(np.rint(255 * bar).astype(np.uint8)), (lefts[-2] + step, TOP))
    for tick in scale.ticks:
        draw.text((lefts[-2] + step + BAR // 4 + 4, tick.at), tick.text, "white", small, "lm")
    with replacing(path) as temporary:
        panel.save(temporary, "PNG", compress_level=1)


def _grey(image: np.ndarray) -> np.ndarray:
    """(H, W) -> (H, W, 3)."""
    return np.repeat(image[..., None], 3, axis=2)


def _blend(image: np.ndarray, colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Lay colours (H, W, 3), or one, over an image (H, W) with an opacity (H, W)."""
    return _grey(image) + opacity[..., None] * (colours - _grey(image))


def _outline(draw: ImageDraw.ImageDraw, mask: np.ndarray, left: int, colour: str) -> None:
    """Draw where a mask (H, W) crosses 0.5 over the tile that begins at `left`."""
    for line in find_contours(np.pad(mask, 1).astype(float), 0.5):
        places = (line - 0.5) * np.divide(TILE, mask.shape) + (TOP, left)
        draw.line([(float(x), float(y)) for y, x in places], colour, 1)
