"""The controls that learn nothing."""

import pytest
import torch

from pathology_screen.anomaly import AnomalyMap, equalize
from pathology_screen.errors import ConfigError
from pathology_screen.networks.controls import PrincipalComponents, TrainingMean, ZeroReconstruction


def uniform(count, seed=0, size=16):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


def test_the_mean_of_the_training_slices_whatever_it_sees():
    training, x = uniform(5), torch.zeros(3, 1, 16, 16)
    control = TrainingMean(training)
    torch.testing.assert_close(control(x), training.mean(dim=0, keepdim=True).expand_as(x))
    assert not list(control.parameters()) and control.state_dict().keys() == {"mean"}


def test_the_map_of_the_zero_reconstruction_is_the_slice_itself_equalised():
    x = uniform(2, size=32) ** 2
    for equalized, expected in ((False, x), (True, equalize(x))):
        maps = AnomalyMap("none", equalize=equalized)(x, ZeroReconstruction()(x))
        torch.testing.assert_close(maps, expected)


def test_principal_components_paint_what_lies_among_the_training_slices():
    """A mixture of them and of their mirror images; something else is projected."""
    training, other = uniform(4), uniform(2, seed=1)
    components = PrincipalComponents(training, count=7)
    mixture = (0.3 * training[:1] + 0.2 * training[1:2] + 0.5 * training[2:3]).flip(3)
    torch.testing.assert_close(components(mixture), mixture, rtol=0, atol=1e-5)
    painted = components(other)
    assert painted.shape == other.shape and painted.min() >= 0 and painted.max() <= 1
    assert (painted - other).abs().mean() > 0.1
    with pytest.raises(ConfigError, match="128 components take 64 training slices or more, not 4"):
        PrincipalComponents(training)
