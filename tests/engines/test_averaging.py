"""The average of the weights."""

import pytest
import torch
from tiny_training import make_trainer
from torch import nn

from pathology_screen.engines import AveragedWeights


def average(values, decay):
    """The averages of one weight that takes these values in turn."""
    network = nn.Linear(1, 1, bias=False)
    averaged, x, results = AveragedWeights(network, decay), torch.ones(1, 1), []
    for value in values:
        nn.init.constant_(network.weight, value)
        averaged.update_parameters(network)
        results.append(averaged(x).item())
    return results


@pytest.mark.parametrize(
    ("values", "decay", "last"),
    [
        ([4.0, 2.0, 7.0], 0.999, [4.0, 2.2, 2.2 + 4.8 * 9 / 11]),  # the next count by their number
        ([0.0] * 200 + [1.0] * 3, 0.9, [0.1, 0.19, 0.271]),  # in the long run by the decay
        ([3.0, 5.0, -1.0], 0.0, [3.0, 5.0, -1.0]),  # without decay it is the network
    ],
)
def test_weights_count_by_their_number_and_by_the_decay(values, decay, last):
    assert average(values, decay)[-3:] == pytest.approx(last)


def test_what_does_not_move_stays_exactly():
    assert len(set(average([0.1] * 50, decay=0.999))) == 1


def test_training_keeps_the_average_not_the_weights(tmp_path):
    make_trainer(tmp_path, 2, 4, decay=0.9).run()
    kept = torch.load(tmp_path / "model.pt", weights_only=True)
    network = torch.load(tmp_path / "resume.pt", weights_only=True)["network"]
    assert kept.keys() == network.keys()
    assert any(not torch.equal(kept[name], network[name]) for name in kept)
