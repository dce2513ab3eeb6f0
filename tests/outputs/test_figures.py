import warnings

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.image import imread

from pathology_screen.outputs.figures import save_panel

SIZE = 32


@pytest.fixture
def image():
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    return ((rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.15).astype(np.float32) * 0.8


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda self, *args, **kw: figures.append(self) or save(self, *args, **kw),
    )
    return figures


def panels(figure):
    """Axes by title, without the colour bar."""
    return {axis.get_title(): axis for axis in figure.axes if axis.get_title()}


@pytest.mark.parametrize(
    ("height", "threshold"),
    [(0.0, 0.0), (0.0, 0.1), (0.5, 0.0), (0.5, 0.1), (0.05, 0.1), (1e-30, 0)],
)
def test_four_panels_whatever_the_map(height, threshold, image, drawn, tmp_path):
    anomaly_map = np.zeros_like(image)
    anomaly_map[10:14, 16:20] = height
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_panel(image, image, anomaly_map, threshold, "scan", tmp_path / "panel.png")
    assert list(panels(drawn[0])) == [
        "input",
        "pseudo-healthy reconstruction",
        "anomaly map",
        "above threshold",
    ]
    pixels = imread(tmp_path / "panel.png")
    assert pixels.shape[1] > 2 * pixels.shape[0] > 400 and pixels[..., :3].max() > 0.5


def test_regions_are_where_the_map_is_greater_than_the_threshold(image, drawn, tmp_path):
    anomaly_map = np.full_like(image, 0.1)
    anomaly_map[10:14, 16:20] = 0.2
    save_panel(image, image, anomaly_map, 0.1, "scan", tmp_path / "panel.png")
    regions = panels(drawn[0])["above threshold"].images[-1].get_array()
    assert np.array_equal(~np.ma.getmaskarray(regions), anomaly_map > 0.1)


def test_orientation_is_marked_as_in_radiology(image, drawn, tmp_path):
    """Columns run to the patient's left, so the left edge is the patient's right."""
    save_panel(image, image, image, 0.1, "scan", tmp_path / "panel.png")
    marks = {text.get_text(): text.get_position()[0] for text in panels(drawn[0])["input"].texts}
    assert marks["R"] < 0.5 < marks["L"]
    assert panels(drawn[0])["input"].images[0].origin == "upper"  # row 0, anterior, is on top


def test_the_outline_of_the_template_is_drawn_over_the_input_alone(image, drawn, tmp_path):
    template = np.zeros_like(image)
    template[8:24, 6:20] = 1
    save_panel(image, image, 0 * image, 0.1, "scan", tmp_path / "panel.png", template)
    save_panel(image, image, 0 * image, 0.1, "scan", tmp_path / "panel.png")
    first, second = (panels(figure) for figure in drawn)
    assert [len(axis.collections) for axis in first.values()] == [1, 0, 0, 0]
    assert [len(axis.collections) for axis in second.values()] == [0, 0, 0, 0]
    extent = first["input"].collections[0].get_paths()[0].get_extents()
    assert (extent.x0, extent.y0, extent.x1, extent.y1) == (5.5, 7.5, 19.5, 23.5)


def test_the_title_is_that_of_the_picture(image, drawn, tmp_path):
    save_panel(image, image, image, 0.1, "sub-1_T1w   score 0.02", tmp_path / "panel.png")
    assert drawn[0].get_suptitle() == "sub-1_T1w   score 0.02"


def test_a_failed_picture_leaves_nothing(image, tmp_path, monkeypatch):
    def fail(self, path, **options):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail)
    with pytest.raises(OSError, match="no space"):
        save_panel(image, image, image, 0.1, "scan", tmp_path / "panel.png")
    assert not list(tmp_path.iterdir())
