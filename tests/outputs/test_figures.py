"""Pictures of one slice, where the template's brain lies on it, and the viewer's layers."""

import base64
import io
import re
import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from template_brains import TO_SCAN, template_brain

from pathology_screen.outputs import figures
from pathology_screen.outputs.figures import BAR, COLOURS, GAP, STOPS, TILE, TIMES, TOP
from pathology_screen.result import ScreenedSlice, ScreeningResult

SIZE = 32
CYAN, RED = (0x4D, 0xE1, 0xFF), (255, 0, 0)


@pytest.fixture
def image():
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    return ((rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.15).astype(np.float32) * 0.8


@pytest.fixture
def draw(image, tmp_path, monkeypatch):
    """Function that saves a panel, and gives its pictures (N, 256, 256, 3), from left to right."""

    def draw(anomaly_map, threshold=0.1, title="scan", template=None, painted=image):
        monkeypatch.setattr(figures, "template_on_slice", lambda one: template)
        one = ScreenedSlice(0.0, image, painted, anomaly_map, None, np.eye(4))
        figures.save_panel(one, threshold, title, tmp_path / "panel.png")
        pixels = np.asarray(Image.open(tmp_path / "panel.png")).astype(int)
        count = 3 if painted is None else 4
        assert pixels.shape == (TOP + TILE + GAP, count * (TILE + GAP) + BAR + GAP, 3)
        assert pixels[:30].max() == 255  # the title
        lefts = [GAP + number * (TILE + GAP) for number in range(count)]
        lefts[-1] += BAR
        return [pixels[TOP : TOP + TILE, left : left + TILE] for left in lefts]

    return draw


def ends(tile, colour):
    """Least and largest x and y where a colour is, in pixels of the slice; None where it is not."""
    places = np.argwhere((tile == colour).all(axis=-1))[:, ::-1] * SIZE / TILE
    return [*places.min(axis=0), *places.max(axis=0)] if len(places) else None


@pytest.mark.parametrize(
    ("height", "threshold"),
    [(0.0, 0.0), (0.0, 0.1), (0.5, 0.0), (0.5, 0.1), (0.05, 0.1), (1e-30, 0)],
)
def test_four_panels_whatever_the_map_or_three_without_a_reconstruction(
    height, threshold, image, draw
):
    anomaly_map = np.zeros_like(image)
    anomaly_map[10:14, 16:20] = height
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, second, third, _ = draw(anomaly_map, threshold, "sub-1_T1w   score 0.02")
    assert np.ptp(second, axis=-1).max() == 0 and second.max() == 204  # grey; 0.8 of white
    coloured = np.ptp(third[88:104, 136:152], axis=-1).min() > 0
    assert coloured == (height > threshold / 4)
    assert len(draw(anomaly_map, painted=None)) == 3


def test_regions_are_where_the_map_is_greater_than_the_threshold(image, draw):
    anomaly_map = np.full_like(image, 0.1)
    anomaly_map[10:14, 16:20] = 0.2
    tiles = draw(anomaly_map)
    assert ends(tiles[-1], RED) == pytest.approx([16, 10, 20, 14], abs=0.2)
    inside = tiles[-1][84:108, 132:156]  # half of yellow over the image
    assert (inside[..., 2] < inside[..., 1]).all() and ends(tiles[0], RED) is None


def test_orientation_is_marked_as_in_radiology(image, draw):
    """Columns run to the patient's left, so the left edge is the patient's right; row 0, anterior,
    is on top."""
    image[:8] = 1
    panel = draw(0 * image)[0]
    assert panel[20].min() == 255 and panel[-20].max() == 0
    marks = [panel[110:146, part] for part in (slice(0, 20), slice(-20, None))]
    right, left = ((mark - mark[:1])[..., 0] > 100 for mark in marks)
    assert right.any() and left.any() and right.sum() > 1.3 * left.sum()  # R has more ink than L


def test_the_outline_of_the_template_is_drawn_over_the_input_alone(image, draw):
    template = np.zeros_like(image)
    template[8:24, 6:20] = 1
    with_it, without = draw(0 * image, template=template), draw(0 * image)
    shown = ends(with_it[0][:236], CYAN)  # above the words
    assert shown == pytest.approx([6, 8, 20, 24], abs=0.2)
    assert not any(ends(tile, CYAN) for tile in [*with_it[1:], *without])


def test_the_template_covers_its_own_brain_and_tells_a_wrong_registration(
    result, single, make_brain_screener, tmp_path
):
    """The second scan lies 12 mm further to the left than the screener was told."""
    moved = nib.affines.from_matvec(np.eye(3), (-12, 0, 0)) @ TO_SCAN
    nib.save(template_brain(to_scan=moved), tmp_path / "moved.nii")
    dice, shift = [], []
    for one in (result.slice, make_brain_screener()(tmp_path / "moved.nii").slice):
        shown, brain = figures.template_on_slice(one) > 0.5, one.image > 0.1
        dice.append(2 * (shown & brain).sum() / (shown.sum() + brain.sum()))
        shift.append(np.nonzero(brain)[1].mean() - np.nonzero(shown)[1].mean())
    assert dice[0] > 0.95 and dice[1] < 0.93
    outline = max(vertices(figures.make_viewer(result)["template"]), key=np.ptp)
    for found, brain in zip(outline.T[::-1], np.nonzero(result.slice.image > 0.1)):
        ends = brain.min(), brain.max() + 1
        assert (found.min(), found.max()) == pytest.approx(ends, abs=1.5)
    assert shift[1] == pytest.approx(12 / 1.05 / 3.64, abs=0.8)  # columns run to the left
    assert figures.template_on_slice(single.slice) is None  # it was not registered


def view(anomaly_map, threshold=0.5, labels=None, image=None):
    labels = np.zeros(anomaly_map.shape, np.uint16) if labels is None else labels.astype(np.uint16)
    image = anomaly_map if image is None else image
    one = ScreenedSlice(0.0, image, None, anomaly_map, labels, np.eye(4))
    return figures.make_viewer(ScreeningResult("normal", pixel_threshold=threshold, slice=one))


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


def test_greys_clip_and_a_map_is_clear_at_zero_opaque_from_the_threshold_and_ends_in_one_colour():
    threshold = 0.2
    values = np.array([[0, threshold / 2, threshold, TIMES * threshold, 10]], np.float32)
    shown = view(values, threshold, image=np.array([[0, 0.5, 1], [-1, 0.2, 2]], np.float32))
    assert np.asarray(picture(shown["image"])).tolist() == [[0, 128, 255], [0, 51, 255]]
    pixels = np.asarray(picture(shown["anomaly_map"]).convert("RGBA"))[0]
    assert pixels[:, 3].tolist() == pytest.approx([0, 128, 255, 255, 255], abs=2)
    assert np.array_equal(pixels[3], pixels[4]) and not np.array_equal(pixels[2], pixels[3])
    assert pixels[3, :3].tolist() == np.rint(255 * COLOURS[-1]).tolist()
    ends = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in (STOPS[0], STOPS[-1])]
    assert np.allclose(ends, np.rint(255 * COLOURS[[0, -1]]), atol=1)


@settings(max_examples=25, deadline=None)
@given(st.floats(12, 20), st.floats(12, 20), st.floats(3, 8))
def test_an_outline_runs_where_the_map_crosses_the_threshold(row, column, radius):
    values = disc(32, row, column, radius)
    (line,) = vertices(view(values, labels=values > 0.5)["outlines"][1])
    distance = np.hypot(line[:, 0] - column, line[:, 1] - row)  # x is the column
    assert np.abs(distance - radius).max() < 0.25


def test_each_region_has_its_own_outline_and_unlisted_ones_none():
    first, second, small = disc(40, 10, 10, 4), disc(40, 28, 30, 5), disc(40, 5, 35, 1.5)
    labels = np.where(first > 0.5, 3, np.where(second > 0.5, 7, 0))
    found = view(np.maximum.reduce([first, second, small]), labels=labels)["outlines"]
    centres = {label: vertices(path)[0].mean(axis=0) for label, path in found.items()}
    assert centres.keys() == {3, 7}
    assert np.allclose(centres[3], (10, 10), atol=0.3)
    assert np.allclose(centres[7], (30, 28), atol=0.3)


def test_regions_that_touch_keep_apart_and_edges_and_holes_are_closed(monkeypatch):
    values, labels = np.zeros((12, 12), np.float32), np.zeros((12, 12))
    values[3:9, 2:10] = 1
    labels[3:9, 2:6], labels[3:9, 6:10] = 1, 2
    monkeypatch.setattr(figures, "template_on_slice", lambda one: one.image)
    shown = view(values, labels=labels)
    left, right = (vertices(path)[0][:, 0] for path in shown["outlines"].values())
    assert left.max() <= 6 <= right.min() and left.min() < 2.6 and right.max() > 9.4
    (line,) = vertices(shown["template"])  # along its edge
    assert (line.min(axis=0).tolist(), line.max(axis=0).tolist()) == ([2, 3], [10, 9])
    values = np.ones((9, 9), np.float32)
    values[4, 4] = 0
    shown = view(values, labels=np.ones((9, 9)))
    for path in (shown["outlines"][1], shown["template"]):
        outer, inner = sorted(vertices(path), key=np.ptp, reverse=True)
        assert outer.min() < 0.2 and outer.max() > 8.8 and 3.5 < inner.min() < inner.max() < 5.5
