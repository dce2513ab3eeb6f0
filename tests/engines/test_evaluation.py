import pytest
import torch

from pathology_screen.engines import (
    MeanPerceptualDistance,
    improves,
    prepare_healthy_map,
    prepare_reconstruction,
)


def test_targets_of_validation():
    image = torch.rand(2, 1, 8, 8)
    given, target = prepare_reconstruction({"image": image}, "cpu", False)
    assert torch.equal(given, image) and torch.equal(target, image)
    given, target = prepare_healthy_map({"image": image}, "cpu", False)
    assert torch.equal(given, image) and target.shape == image.shape and not target.any()


@pytest.mark.parametrize(
    ("current", "better"), [(0.5, True), (1 - 2e-8, True), (1 - 5e-9, False), (1.0, False)]
)
def test_an_error_improves_by_more_than_rounding(current, better):
    assert improves(current, 1.0) == better


def test_perceptual_distance_is_averaged_over_pixels():
    distance = MeanPerceptualDistance(torch.nn.L1Loss(reduction="none"))
    means = distance(
        torch.zeros(2, 1, 4, 4), torch.tensor([0.25, 0.5]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    )
    assert means.tolist() == [[0.25], [0.5]]
