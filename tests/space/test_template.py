"""The brain of MNI152 and its tissues."""

import numpy as np
import pytest

from pathology_screen.errors import ConfigError
from pathology_screen.space import load_brain_template, load_tissue, template


def test_template_is_a_brain_in_mni_space():
    brain = load_brain_template()
    voxels = np.asarray(brain.dataobj)
    assert voxels.shape == (197, 233, 189) and np.array_equal(brain.affine[:3, :3], np.eye(3))
    assert brain.affine[:3, 3].tolist() == [-98, -134, -72]
    assert 1800 < (voxels > 0).sum() / 1000 < 2000  # ml
    assert voxels[98, 134, 72] > 0  # the commissure


def test_missing_maps_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(template, "template_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match="mni_icbm152_t1"):
        load_brain_template.__wrapped__()
    with pytest.raises(ConfigError, match="mni_icbm152_wm"):
        load_tissue.__wrapped__("white")
