"""Panels that set methods side by side."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pathology_screen.experiments.pictures import Window, method_grid, outline_annotations
from pathology_screen.predictor import Prediction

NAMES = ["input", "one\nreconstruction", "one\nresidual", "one\neq5", "two\neq5"]


@pytest.fixture
def results(slices, make_method):
    """A method that reconstructs under two scorings, and one that does not."""
    x = slices.images
    one, two = make_method(nn.Identity()), make_method(nn.Identity(), method="mkd")
    return {
        ("one", "residual"): (one, Prediction(1 - x, x / 4, x)),
        ("one", "eq5"): (one, Prediction(1 - x, x / 2, x)),
        ("two", "eq5"): (two, Prediction(1 - x, x * 0.75, x)),
    }


@pytest.mark.parametrize("across", [False, True])
def test_a_picture_for_each_slice_and_line(slices, results, across):
    figure = method_grid(slices, results, [3, 6], across=across)
    axes = np.reshape(figure.axes, (2, 5) if across else (5, 2))
    x = slices.images
    for row, pictures in zip(axes.T if across else axes, (x, 1 - x, x / 4, x / 2, x * 0.75)):
        for axis, place in zip(row, (3, 6)):
            np.testing.assert_allclose(axis.images[0].get_array(), pictures[place, 0])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    labels = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    findings = slices.pathology[[3, 6]].tolist()
    assert (titles, labels) == ((NAMES, findings) if across else (findings, NAMES))


def test_maps_of_one_line_share_their_colours(slices, results):
    figure = method_grid(slices, results, [0, 3])
    limits = [axis.images[0].get_clim() for axis in figure.axes]
    assert limits[:4] == [(0, 1)] * 4 and limits[4] == limits[5]
    assert limits[5][1] == pytest.approx(np.percentile(slices.images.numpy() / 4, 99.5))
    assert limits[7][1] == pytest.approx(2 * limits[5][1])


def test_a_map_of_nothing_can_be_drawn(slices, identity):
    prediction = identity.predict(slices)["residual"]
    figure = method_grid(slices, {("a", "b"): (identity, prediction)}, [0])
    assert figure.axes[2].images[0].get_clim() == (0, 1)


def test_the_window_holds_the_tissue_of_all_slices():
    images = torch.zeros(2, 1, 64, 64)
    images[0, 0, 10:20, 30:50] = 1
    images[1, 0, 15:40, 2:35] = 1
    assert Window.around(images) == (6, 43, 0, 53)
    assert Window.around(images, margin=0) == (10, 39, 2, 49)
    assert Window.around(torch.zeros(1, 1, 64, 32)) == (0, 63, 0, 31)
    assert Window(0, 9, 0, 4).aspect == 0.5


def test_annotations_are_outlined_and_named(slices, results):
    axis = method_grid(slices, results, [3]).axes[0]
    assert outline_annotations(axis, slices, 3) == {"box", "mask"}
    assert outline_annotations(axis, slices, 0) == set()
    with_other = replace(slices, other_boxes=(slices.boxes[3].flip(2),) * 8)
    assert outline_annotations(axis, with_other, 0) == {"other box"}
    (legend,) = method_grid(with_other, results, [3, 4]).legends
    assert [text.get_text() for text in legend.get_texts()] == ["mask", "box", "other box"]
    assert not method_grid(slices, results, [0, 1]).legends
