"""Pictures of one slice, and where the template's brain lies on it."""

import warnings

import matplotlib.figure
import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from template_brains import TO_SCAN, template_brain

from pathology_screen.outputs.figures import save_panel, template_on_slice

SIZE = 32


@pytest.fixture
def image():
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    return ((rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.15).astype(np.float32) * 0.8


@pytest.fixture
def draw(monkeypatch, image, tmp_path):
    """Function that saves a panel, and gives its figure and its axes by their titles."""
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda self, *args, **kw: figures.append(self) or save(self, *args, **kw),
    )

    def draw(anomaly_map, threshold=0.1, title="scan", template=None, painted=image):
        path = tmp_path / "panel.png"
        save_panel(image, painted, anomaly_map, threshold, title, path, template)
        return figures[-1], {
            axis.get_title(): axis for axis in figures[-1].axes if axis.get_title()
        }

    return draw


@pytest.mark.parametrize(
    ("height", "threshold"),
    [(0.0, 0.0), (0.0, 0.1), (0.5, 0.0), (0.5, 0.1), (0.05, 0.1), (1e-30, 0)],
)
def test_four_panels_whatever_the_map(height, threshold, image, draw, tmp_path):
    anomaly_map = np.zeros_like(image)
    anomaly_map[10:14, 16:20] = height
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, panels = draw(anomaly_map, threshold, "sub-1_T1w   score 0.02")
    names = ["input", "pseudo-healthy reconstruction", "anomaly map", "above threshold"]
    assert list(panels) == names and figure.get_suptitle() == "sub-1_T1w   score 0.02"
    pixels = imread(tmp_path / "panel.png")
    assert pixels.shape[1] > 2 * pixels.shape[0] > 400 and pixels[..., :3].max() > 0.5


def test_a_method_that_does_not_reconstruct_has_three_panels(image, draw):
    assert list(draw(image, painted=None)[1]) == ["input", "anomaly map", "above threshold"]


def test_regions_are_where_the_map_is_greater_than_the_threshold(image, draw):
    anomaly_map = np.full_like(image, 0.1)
    anomaly_map[10:14, 16:20] = 0.2
    regions = draw(anomaly_map)[1]["above threshold"].images[-1].get_array()
    assert np.array_equal(~np.ma.getmaskarray(regions), anomaly_map > 0.1)


def test_orientation_is_marked_as_in_radiology(image, draw):
    """Columns run to the patient's left, so the left edge is the patient's right."""
    panel = draw(image)[1]["input"]
    marks = {text.get_text(): text.get_position()[0] for text in panel.texts}
    assert marks["R"] < 0.5 < marks["L"]
    assert panel.images[0].origin == "upper"  # row 0, anterior, is on top


def test_the_outline_of_the_template_is_drawn_over_the_input_alone(image, draw):
    template = np.zeros_like(image)
    template[8:24, 6:20] = 1
    (_, first), (_, second) = draw(0 * image, template=template), draw(0 * image)
    assert [len(axis.collections) for axis in first.values()] == [1, 0, 0, 0]
    assert [len(axis.collections) for axis in second.values()] == [0, 0, 0, 0]
    extent = first["input"].collections[0].get_paths()[0].get_extents()
    assert (extent.x0, extent.y0, extent.x1, extent.y1) == (5.5, 7.5, 19.5, 23.5)


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
