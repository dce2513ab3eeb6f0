"""Healthy tissue beside boxes, and boxes that vanish on the grid."""

import numpy as np
import pytest
import torch
from boxes import box_masks

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.metrics import LocalizationMetric, healthy_tissue


def test_healthy_tissue_is_tissue_outside_every_box():
    image = np.zeros((12, 12))
    image[2:10, 2:10] = 100
    image[5:7, 5:7] = 1  # dark ventricles
    boxes = box_masks([(0, 0, 4, 4), (8, 8, 4, 4)], image.shape)
    healthy = healthy_tissue(image, boxes)
    assert healthy.shape == (1, 12, 12)
    assert healthy.sum() == 64 - 4 - 4
    assert healthy[0, 5:7, 5:7].all()
    assert not healthy[0, :2].any()
    assert healthy_tissue(image, boxes[:0]).sum() == 64
    with pytest.raises(InputError, match="no_tissue"):
        healthy_tissue(np.zeros((12, 12)), boxes)
    with pytest.raises(ConfigError, match="do not lie on"):
        healthy_tissue(image[:6], boxes)


def test_a_box_that_vanished_on_the_grid_is_counted_as_such():
    grid = torch.zeros(2, 128, 128)
    grid[1, 40:44, 50:54] = 1
    metric = LocalizationMetric(0.5, ["lesion"])
    healthy = torch.ones(1, 128, 128)
    metric(
        torch.ones(1, 1, 128, 128),
        [{"boxes": grid, "healthy": healthy, "labels": ["lesion", "lesion"]}],
    )
    result = metric.aggregate()
    assert (result["n"], result["empty"], result["detected"]) == (2, 1, 1)
