import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from pathology_screen.transforms import StandardPlaned
from pathology_screen.transforms.annotations import AnnotatedSliced


def test_a_box_comes_onto_the_plane_of_a_registered_scan():
    """With the registration of the scan, though a box has no brain of its own."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -98, -134, -72  # the grid of MNI152
    shape = (99, 117, 95)
    meta = {
        "to_scan": np.eye(4),
        "fit": {"dice": 0.9, "correlation": 0.6},
        "volume_shape": list(shape),
        "volume_affine": affine.tolist(),
    }
    scan = MetaTensor(torch.rand(1, *shape), affine=torch.as_tensor(affine), meta=meta)
    brain = MetaTensor(torch.ones(1, *shape), affine=torch.as_tensor(affine))
    level = 47  # -72 + 2 * 47 = 22 mm; the plane lies between it and the next
    box = {"label": "mass", "box": [20, 30, 10, 12], "slice": level}
    away = {"label": "mass", "box": [20, 30, 10, 12], "slice": 5}
    item = AnnotatedSliced(Compose([StandardPlaned("image")]))({"image": scan, "brain": brain, "boxes": [box, away]})
    assert item["boxes_labels"] == ["mass"] and item["boxes_masks"].shape == (1, 233, 197)
    row, column = np.nonzero(np.asarray(item["boxes_masks"][0]) > 0.4)
    assert abs(np.ptp(row) + 1 - 24) <= 2 and abs(np.ptp(column) + 1 - 20) <= 2
