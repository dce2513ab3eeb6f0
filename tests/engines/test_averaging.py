"""The average of the weights."""

import pytest
import torch
from tiny_training import make_trainer
from torch import nn

from pathology_screen.engines import AveragedWeights


def average(values, decay):
    """The averages of one weight that takes these values in turn."""
    network = nn.Linear(1, 1, bias=False)
    averaged = AveragedWeights(network, decay)
    results = []
    for value in values:
        nn.init.constant_(network.weight, value)
        averaged.update_parameters(network)
        results.append(averaged.module.weight.item())
    return results


def test_the_first_weights_are_the_average_and_the_next_count_by_their_number():
    assert average([4.0, 2.0, 7.0], decay=0.999) == pytest.approx([4.0, 2.2, 2.2 + 4.8 * 9 / 11])


def test_in_the_long_run_the_average_forgets_at_its_decay():
    values = average([0.0] * 200 + [1.0] * 3, decay=0.9)
    assert values[-3:] == pytest.approx([0.1, 0.19, 0.271])


def test_without_decay_it_is_the_network():
    assert average([3.0, 5.0, -1.0], decay=0.0) == [3.0, 5.0, -1.0]


def test_what_does_not_move_stays_exactly():
    assert len(set(average([0.1] * 50, decay=0.999))) == 1


def test_it_gives_what_the_network_with_averaged_weights_gives():
    network = nn.Linear(2, 2)
    averaged, x = AveragedWeights(network, 0.9), torch.rand(3, 2)
    assert torch.equal(averaged(x), network(x))


def test_training_keeps_the_average_not_the_weights(tmp_path):
    trainer = make_trainer(tmp_path, 2, 4, decay=0.9)
    trainer.run()
    kept = torch.load(tmp_path / "model.pt", weights_only=True)
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert kept.keys() == state["network"].keys()
    assert any(not torch.equal(kept[name], state["network"][name]) for name in kept)
    assert all(torch.equal(kept[name], state["averaged"][f"module.{name}"]) for name in kept)
    assert state["averaged"]["n_averaged"] == 6
