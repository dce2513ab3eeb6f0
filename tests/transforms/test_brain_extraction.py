"""The brain of a scan as a mask."""

import numpy as np
import pytest
import torch
from head_builder import ellipsoids
from monai.data import MetaTensor

from pathology_screen.errors import ConfigError
from pathology_screen.transforms import ExtractBraind

AFFINE = np.array([[0, 2.0, 0, -90], [-2.0, 0, 0, 110], [0, 0, 2.0, -70], [0, 0, 0, 1]])


def test_the_brain_is_a_mask_of_its_own():
    brain = ellipsoids((110, 90, 100), AFFINE, brain_only=True)[None]
    scan = MetaTensor(brain, affine=AFFINE)
    out = ExtractBraind("image", mask_key="mask")({"image": scan})
    assert torch.equal(out["image"], scan) and out["image"].meta["brain_extracted"]
    assert np.array_equal(out["mask"], brain > 0) and out["mask"].dtype == torch.float32
    assert np.array_equal(out["mask"].affine, AFFINE)


def test_several_scans_are_refused():
    with pytest.raises(ConfigError, match="one key"):
        ExtractBraind(("image", "label"))
