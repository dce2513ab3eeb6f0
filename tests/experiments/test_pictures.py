"""Panels that set methods side by side."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pathology_screen.experiments.pictures import method_grid, window_around
from pathology_screen.predictor import Prediction

NAMES = ["input", "one\nreconstruction", "one\nresidual", "one\neq5", "two\neq5"]


@pytest.fixture
def results(slices, make_method):
    """A method that reconstructs under two scorings, and one that does not and maps nothing."""
    x = slices.images
    one, two = make_method(nn.Identity()), make_method(nn.Identity(), method="mkd")
    return {
        ("one", "residual"): (one, Prediction(1 - x, x / 4, x)),
        ("one", "eq5"): (one, Prediction(1 - x, x / 2, x)),
        ("two", "eq5"): (two, Prediction(1 - x, 0 * x, x)),
    }


@pytest.mark.parametrize("across", [False, True])
def test_a_picture_for_each_slice_and_line_whose_maps_share_their_colours(slices, results, across):
    figure = method_grid(slices, results, [3, 6], across=across)
    axes = np.reshape(figure.axes, (2, 5) if across else (5, 2))
    x, highest = slices.images, np.percentile(slices.images.numpy(), 99.5)
    expected = [(x, 1), (1 - x, 1), (x / 4, highest / 4), (x / 2, highest / 2), (0 * x, 1)]
    for row, (pictures, limit) in zip(axes.T if across else axes, expected):
        for axis, place in zip(row, (3, 6)):
            np.testing.assert_allclose(axis.images[0].get_array(), pictures[place, 0])
            assert axis.images[0].get_clim() == pytest.approx((0, limit))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    labels = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    findings = slices.pathology[[3, 6]].tolist()
    assert (titles, labels) == ((NAMES, findings) if across else (findings, NAMES))


def test_the_window_holds_the_tissue_of_all_slices():
    images = torch.zeros(2, 1, 64, 64)
    images[0, 0, 10:20, 30:50] = 1
    images[1, 0, 15:40, 2:35] = 1
    assert window_around(images) == [6, 43, 0, 53]
    assert window_around(torch.zeros(1, 1, 64, 32)) == [0, 63, 0, 31]


def test_annotations_are_outlined_and_named(slices, results):
    other = replace(slices, other_boxes=(slices.boxes[3].flip(2),) * 8)
    for shown, chosen, expected in (
        (slices, [0, 1], []),
        (slices, [3], ["mask", "box"]),
        (other, [0], ["other box"]),
        (other, [3, 4], ["mask", "box", "other box"]),
    ):
        figure = method_grid(shown, results, chosen)
        named = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert named == expected
        drawn = [len(axis.collections) for axis in figure.axes[: len(chosen)]]
        assert drawn == [len(expected)] * len(chosen)
