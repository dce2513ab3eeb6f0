"""The layers of a picture."""

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pathology_screen.outputs.viewer import (
    COLOURS,
    STOPS,
    TIMES,
    grey_png,
    map_png,
    outline,
    outlines,
)


def picture(uri):
    assert uri.startswith("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def vertices(path):
    """Points (x, y) of the lines of a path in pixels."""
    lines = []
    for start, steps in re.findall(r"M(-?\d+ -?\d+)l([^z]*)z", path):
        moves = np.array([*start.split(), *steps.split()], float).reshape(-1, 2)
        lines.append(moves.cumsum(axis=0) / 10)
    return lines


def disc(size, row, column, radius):
    """A cone that falls to a half at the radius; pixel (i, j) is centred at (i + 0.5, j + 0.5)."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    distance = np.hypot(rows - row, columns - column)
    return np.clip(1 - distance / (2 * radius), 0, 1).astype(np.float32)


def test_greys_keep_rows_and_columns_and_clip():
    image = np.array([[0, 0.5, 1], [-1, 0.2, 2]], np.float32)
    assert np.asarray(picture(grey_png(image))).tolist() == [[0, 128, 255], [0, 51, 255]]


def test_a_map_is_clear_at_zero_opaque_from_the_threshold_and_one_colour_beyond_the_scale():
    threshold = 0.2
    values = np.array([[0, threshold / 2, threshold, TIMES * threshold, 10]], np.float32)
    pixels = np.asarray(picture(map_png(values, threshold)).convert("RGBA"))[0]
    assert pixels[:, 3].tolist() == pytest.approx([0, 128, 255, 255, 255], abs=2)
    assert np.array_equal(pixels[3], pixels[4]) and not np.array_equal(pixels[2], pixels[3])
    assert pixels[3, :3].tolist() == np.rint(255 * COLOURS[-1]).tolist()
    ends = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in (STOPS[0], STOPS[-1])]
    assert np.allclose(ends, np.rint(255 * COLOURS[[0, -1]]), atol=1)


@settings(max_examples=25, deadline=None)
@given(st.floats(12, 20), st.floats(12, 20), st.floats(3, 8))
def test_an_outline_runs_where_the_map_crosses_the_threshold(row, column, radius):
    values = disc(32, row, column, radius)
    (line,) = vertices(outlines(values, (values > 0.5).astype(np.uint16), 0.5)[1])
    distance = np.hypot(line[:, 0] - column, line[:, 1] - row)  # x is the column
    assert np.abs(distance - radius).max() < 0.25


def test_each_region_has_its_own_outline_and_unlisted_ones_none():
    first, second, small = disc(40, 10, 10, 4), disc(40, 28, 30, 5), disc(40, 5, 35, 1.5)
    labels = np.where(first > 0.5, 3, np.where(second > 0.5, 7, 0)).astype(np.uint16)
    found = outlines(np.maximum.reduce([first, second, small]), labels, 0.5)
    assert sorted(found) == [3, 7]
    assert np.allclose(vertices(found[3])[0].mean(axis=0), (10, 10), atol=0.3)
    assert np.allclose(vertices(found[7])[0].mean(axis=0), (30, 28), atol=0.3)


def test_regions_that_touch_keep_apart():
    values, labels = np.zeros((12, 12), np.float32), np.zeros((12, 12), np.uint16)
    values[3:9, 2:10] = 1
    labels[3:9, 2:6], labels[3:9, 6:10] = 1, 2
    left, right = (vertices(path)[0][:, 0] for path in outlines(values, labels, 0.5).values())
    assert left.max() <= 6 <= right.min() and left.min() < 2.6 and right.max() > 9.4


def test_an_outline_at_the_edge_is_closed_and_a_hole_is_a_line_of_its_own():
    values = np.ones((9, 9), np.float32)
    values[4, 4] = 0
    (path,) = outlines(values, np.ones((9, 9), np.uint16), 0.5).values()
    outer, inner = sorted(vertices(path), key=np.ptp, reverse=True)
    assert outer.min() < 0.2 and outer.max() > 8.8 and 3.5 < inner.min() < inner.max() < 5.5


def test_the_outline_of_a_mask_runs_along_its_edge():
    mask = np.zeros((12, 12), np.float32)
    mask[3:9, 2:10] = 1
    (line,) = vertices(outline(mask))
    assert (line.min(axis=0).tolist(), line.max(axis=0).tolist()) == ([2, 3], [10, 9])
    (whole,) = vertices(outline(np.ones((4, 4), np.float32)))
    assert whole.min() == 0 and whole.max() == 4  # closed at the border
