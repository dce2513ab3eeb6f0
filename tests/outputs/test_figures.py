"""Pictures of one slice, and where the template's brain lies on it."""

import warnings

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from template_brains import TO_SCAN, template_brain

from pathology_screen.outputs.figures import BAR, GAP, TILE, TOP, save_panel, template_on_slice

SIZE = 32


@pytest.fixture
def image():
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    return ((rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.15).astype(np.float32) * 0.8


@pytest.fixture
def draw(image, tmp_path):
    """Function that saves a panel, and gives its pictures (N, 256, 256, 3), from left to right."""

    def draw(anomaly_map, threshold=0.1, title="scan", template=None, painted=image):
        path = tmp_path / "panel.png"
        save_panel(image, painted, anomaly_map, threshold, title, path, template)
        pixels = np.asarray(Image.open(path)).astype(int)
        count = 3 if painted is None else 4
        assert pixels.shape == (TOP + TILE + GAP, count * (TILE + GAP) + BAR + GAP, 3)
        assert pixels[:30].max() == 255  # the title
        lefts = [GAP + number * (TILE + GAP) for number in range(count)]
        lefts[-1] += BAR
        return [pixels[TOP : TOP + TILE, left : left + TILE] for left in lefts]

    return draw


def shows(tile, colour):
    """(N, 2): x and y where a colour is, in pixels of the slice."""
    return np.argwhere((tile == colour).all(axis=-1))[:, ::-1] * SIZE / TILE


CYAN, RED = (0x4D, 0xE1, 0xFF), (255, 0, 0)


@pytest.mark.parametrize(
    ("height", "threshold"),
    [(0.0, 0.0), (0.0, 0.1), (0.5, 0.0), (0.5, 0.1), (0.05, 0.1), (1e-30, 0)],
)
def test_four_panels_whatever_the_map(height, threshold, image, draw):
    anomaly_map = np.zeros_like(image)
    anomaly_map[10:14, 16:20] = height
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second, third, _ = draw(anomaly_map, threshold, "sub-1_T1w   score 0.02")
    grey = np.ptp(second, axis=-1)
    assert grey.max() == 0 and second.max() == 204  # 0.8 of white
    coloured = np.ptp(third[88:104, 136:152], axis=-1).min() > 0
    assert coloured == (height > threshold / 4)


def test_a_method_that_does_not_reconstruct_has_three_panels(image, draw):
    assert len(draw(image, painted=None)) == 3


def test_regions_are_where_the_map_is_greater_than_the_threshold(image, draw):
    anomaly_map = np.full_like(image, 0.1)
    anomaly_map[10:14, 16:20] = 0.2
    tiles = draw(anomaly_map)
    (left, top), (right, bottom) = (
        ends(shows(tiles[-1], RED), axis=0) for ends in (np.min, np.max)
    )
    assert [left, top, right, bottom] == pytest.approx([16, 10, 20, 14], abs=0.2)
    inside = tiles[-1][84:108, 132:156]  # half of yellow over the image
    assert (inside[..., 2] < inside[..., 1]).all() and not len(shows(tiles[0], RED))


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
    places = shows(with_it[0][:236], CYAN)  # above the words
    ends = [*places.min(axis=0), *places.max(axis=0)]
    assert ends == pytest.approx([6, 8, 20, 24], abs=0.2)
    assert not any(len(shows(tile, CYAN)) for tile in [*with_it[1:], *without])


def overlap(one):
    """Dice overlap of the template's brain with that of the slice, and both masks."""
    shown, brain = template_on_slice(one) > 0.5, one.image > 0.1
    return 2 * (shown & brain).sum() / (shown.sum() + brain.sum()), shown, brain


def test_the_template_covers_the_brain_that_is_its_own(result, single):
    assert overlap(result.slice)[0] > 0.95
    assert template_on_slice(single.slice) is None  # it was not registered


def test_the_template_tells_a_wrong_registration(make_brain_screener, tmp_path):
    """The scan lies 12 mm further to the left than the screener was told."""
    moved = nib.affines.from_matvec(np.eye(3), (-12, 0, 0)) @ TO_SCAN
    nib.save(template_brain(to_scan=moved), tmp_path / "moved.nii")
    dice, *masks = overlap(make_brain_screener()(tmp_path / "moved.nii").slice)
    shown, brain = (np.nonzero(mask)[1].mean() for mask in masks)
    assert dice < 0.93
    assert brain - shown == pytest.approx(12 / 1.05 / 3.64, abs=0.8)  # columns run to the left
