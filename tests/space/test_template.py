"""The brain of MNI152 and its tissues."""

import numpy as np
import pytest

from pathology_screen.errors import ConfigError
from pathology_screen.space import load_brain_template, load_tissue, template


def test_template_is_a_brain_in_mni_space():
    brain = load_brain_template()
    voxels = np.asarray(brain.dataobj)
    assert voxels.shape == (197, 233, 189) and np.array_equal(brain.affine[:3, :3], np.eye(3))
    assert 1800 < (voxels > 0).sum() / 1000 < 2000  # ml
    commissure = np.round(np.linalg.inv(brain.affine) @ [0, 0, 0, 1]).astype(int)[:3]
    assert voxels[tuple(commissure)] > 0


@pytest.mark.parametrize(
    ("load", "arguments", "named"),
    [(load_brain_template, (), "t1"), (load_tissue, ("white",), "wm")],
)
def test_missing_maps_are_named(load, arguments, named, monkeypatch, tmp_path):
    monkeypatch.setattr(template, "template_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match=f"mni_icbm152_{named}"):
        load.__wrapped__(*arguments)
