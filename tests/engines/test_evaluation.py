import torch
from monai.data import Dataset, MetaTensor
from monai.inferers import SimpleInferer

from pathology_screen.engines import in_standard_pose
from pathology_screen.networks.restoration import Restoration


def brain() -> MetaTensor:
    """An ellipse with a dark middle, off the centre, (1, 128, 128)."""
    place = torch.linspace(-1, 1, 128)
    radius = ((place[:, None] - 0.1) / 0.8) ** 2 + ((place - 0.15) / 0.65) ** 2
    return MetaTensor((0.8 * (radius < 1) - 0.5 * (radius < 0.1))[None], meta={"level": 3})


def test_slices_are_brought_into_the_pose_that_the_network_will_see():
    inferer = Restoration(passes=1)
    made = in_standard_pose(Dataset([{"image": brain(), "subject": "a"}]), inferer)[0]
    assert made["subject"] == "a" and made["image"].meta["level"] == 3
    expected = inferer.standardize(brain().as_tensor()[None])[0]
    assert torch.equal(made["image"].as_tensor(), expected) and not torch.equal(expected, brain().as_tensor())


def test_without_a_standard_pose_nothing_changes():
    dataset = Dataset([{"image": brain()}])
    assert in_standard_pose(dataset, SimpleInferer()) is dataset
    made = in_standard_pose(dataset, Restoration(pose=False))[0]["image"]
    assert torch.equal(made.as_tensor(), brain().as_tensor())
