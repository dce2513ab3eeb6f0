import pytest
import torch
from torch import nn

from pathology_screen.engines import (
    AveragedWeights,
    MeanPerceptualDistance,
    improves,
    prepare_healthy_map,
    prepare_reconstruction,
)


@pytest.mark.parametrize(
    ("values", "decay", "last"),
    [
        ([4.0, 2.0, 7.0], 0.999, [4.0, 2.2, 2.2 + 4.8 * 9 / 11]),  # the next count by their number
        ([0.0] * 200 + [1.0] * 3, 0.9, [0.1, 0.19, 0.271]),  # in the long run by the decay
        ([3.0, 5.0, -1.0], 0.0, [3.0, 5.0, -1.0]),  # without decay it is the network
        ([0.1] * 50, 0.999, [torch.tensor(0.1).item()]),  # what does not move stays exactly
    ],
)
def test_weights_count_by_their_number_and_by_the_decay(values, decay, last):
    network = nn.Linear(1, 1, bias=False)
    averaged, averages = AveragedWeights(network, decay), []
    for value in values:
        nn.init.constant_(network.weight, value)
        averaged.update_parameters(network)
        averages.append(averaged(torch.ones(1, 1)).item())
    exact = len(last) == 1
    assert averages[-len(last) :] == (last if exact else pytest.approx(last))


def test_targets_of_validation():
    image = torch.rand(2, 1, 8, 8)
    given, target = prepare_reconstruction({"image": image}, "cpu", False)
    assert torch.equal(given, image) and torch.equal(target, image)
    given, target = prepare_healthy_map({"image": image}, "cpu", False)
    assert torch.equal(given, image) and target.shape == image.shape and not target.any()


def test_an_error_improves_by_more_than_rounding():
    assert improves(0.5, 1.0) and improves(1 - 2e-8, 1.0)
    assert not improves(1 - 5e-9, 1.0) and not improves(1.0, 1.0)


def test_perceptual_distance_is_averaged_over_pixels():
    distance = MeanPerceptualDistance(nn.L1Loss(reduction="none"))
    images = torch.tensor([0.25, 0.5]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    assert distance(torch.zeros(2, 1, 4, 4), images).tolist() == [[0.25], [0.5]]
