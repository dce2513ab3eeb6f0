import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathology_screen.engines import seeded_generator
from pathology_screen.engines.pose_batch import PoseBatch, displacement, draw_poses
from pathology_screen.errors import ConfigError
from pathology_screen.networks.pose import LARGEST_POSE, PoseEstimator, pose_matrix, resample, standard_pose
from pathology_screen.synthetic import hide_parts
from pathology_screen.transforms import eval_transforms


def blob() -> torch.Tensor:
    """One smooth ellipse off the centre, (1, 1, 128, 128)."""
    place = torch.linspace(-1, 1, 128)
    return torch.exp(-(((place[:, None] - 0.2) / 0.5) ** 2) - ((place + 0.1) / 0.3) ** 2)[None, None]


def test_matrix_scales_then_rotates_then_shifts():
    pose = torch.tensor([[math.pi / 2, 0.1, -0.2, math.log(2.0), math.log(3.0)]])
    place = pose_matrix(pose) @ torch.tensor([1.0, 1.0, 1.0])
    assert torch.allclose(place, torch.tensor([[-3.0 + 0.1, 2.0 - 0.2, 1.0]]), atol=1e-6)


def test_no_pose_changes_nothing():
    assert torch.equal(pose_matrix(torch.zeros(1, 5))[0], torch.eye(3))
    assert torch.allclose(resample(blob(), torch.eye(3)[None], "bicubic"), blob(), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*(st.floats(-0.5 * largest, 0.5 * largest) for largest in LARGEST_POSE)))
def test_resampling_there_and_back_gives_the_image(pose):
    matrix = pose_matrix(torch.tensor([pose]))
    back = resample(resample(blob(), matrix, "bicubic"), torch.linalg.inv(matrix), "bicubic")
    assert (back - blob())[..., 40:88, 40:88].abs().max() < 0.02


def test_untrained_estimator_leaves_the_pose_and_locate_composes_its_estimates():
    estimator = PoseEstimator(size=64, channels=(8, 8)).eval()
    x = torch.rand(2, 1, 64, 64)
    assert torch.equal(estimator.locate(x), torch.eye(3).expand(2, 3, 3))
    estimator.layers[-1].bias.data[1] = 0.5  # a shift of 0.1 half sides
    assert torch.allclose(estimator.locate(x, steps=2)[:, 0, 2], torch.tensor(0.2))
    estimator.layers[-1].bias.data[1] = 50.0  # held within the range of the poses learned
    assert torch.allclose(estimator.locate(x, steps=1)[:, 0, 2], torch.tensor(LARGEST_POSE[1]))


def test_pose_does_not_depend_on_the_resolution(phantoms):
    coarse, fine = (
        eval_transforms(
            level=0.55, grid="isotropic", size=size, millimetres=208.0, percentile=98.0, domain="brain_extracted"
        )({"image": str(phantoms[0])})["image"].as_tensor()[None]
        for size in (64, 128)
    )
    assert (standard_pose().locate(coarse) - standard_pose().locate(fine)).abs().max() < 0.05


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="multiple of 32"):
        PoseEstimator(size=72)


def test_displacement_by_hand():
    pose = torch.tensor([[0.0, 0.1, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert torch.allclose(displacement(pose, torch.zeros(2, 5)), torch.tensor([6.4, 0.0]))  # 0.1 of 64 px


def test_poses_stay_in_range_and_many_are_small():
    drawn = draw_poses(2000, seeded_generator(0)).abs() / torch.tensor(LARGEST_POSE)
    assert drawn.max() <= 1
    assert (drawn.max(dim=1).values <= 0.2).float().mean() == pytest.approx(0.4, abs=0.05)


def test_hidden_parts_are_bounded_and_drawn_from_the_generator():
    images = torch.rand(16, 1, 64, 64)
    hidden = hide_parts(images, seeded_generator(3))
    assert torch.equal(hidden, hide_parts(images, seeded_generator(3)))
    assert hidden.min() >= 0 and hidden.max() <= 1
    changed = (hidden != images).float().mean(dim=(1, 2, 3))
    assert 0.1 < (changed > 0).float().mean() < 1 and changed.max() < 0.7


def test_batches_are_a_function_of_seed_and_iteration_and_undoing_the_pose_gives_the_slice():
    batch = PoseBatch(seed=1)
    images = blob().expand(8, 1, 128, 128).contiguous()
    batch.iteration = 5
    posed, pose = batch({"image": images}, "cpu")
    again, same = batch({"image": images}, "cpu")
    assert torch.equal(posed, again) and torch.equal(pose, same)
    batch.iteration = 6
    assert not torch.equal(batch({"image": images}, "cpu")[1], pose)
    undone = resample(posed, pose_matrix(pose), "bicubic")
    assert (undone - images)[..., 40:88, 40:88].abs().flatten(1).median(dim=1).values.median() < 0.02


def test_shipped_estimator_undoes_poses_of_phantoms(phantoms):
    """Trained on real brains; phantoms are others, so only a bound: far less than no estimate."""
    prepare = eval_transforms(
        level=0.55, grid="isotropic", size=128, millimetres=208.0, percentile=98.0, domain="brain_extracted"
    )
    image = torch.stack([prepare({"image": str(path)})["image"].as_tensor() for path in phantoms])
    own = standard_pose().locate(image)
    pose = draw_poses(2 * 16, seeded_generator(7)).reshape(16, 2, 5)
    shifts = []
    for drawn in pose:
        posed = resample(image, torch.linalg.inv(pose_matrix(drawn)))
        found = standard_pose().locate(posed)  # = pose @ own where the estimate is exact
        places = torch.tensor([[0.7, 0.8, 1.0], [-0.7, 0.8, 1.0], [0.0, 0.0, 1.0]]).T
        shifts.append((64 * ((found - pose_matrix(drawn) @ own) @ places)[:, :2]).norm(dim=1).mean())
    assert torch.stack(shifts).median() < 3  # pixels
