"""The controls that learn nothing."""

import pytest
import torch

from pathology_screen.anomaly import AnomalyMap, equalize
from pathology_screen.errors import ConfigError
from pathology_screen.networks.controls import PrincipalComponents, TrainingMean, ZeroReconstruction


def test_the_template_is_the_mean_of_the_training_slices_whatever_it_sees():
    training = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    template = TrainingMean(training)
    result = template(torch.zeros(3, 1, 16, 16))
    assert result.shape == (3, 1, 16, 16)
    for image in result:
        torch.testing.assert_close(image, training.mean(dim=0))
    assert not list(template.parameters()) and template.state_dict().keys() == {"mean"}


def test_one_slice_is_its_own_template():
    training = torch.rand(1, 1, 16, 16)
    assert torch.equal(TrainingMean(training)(training), training)


def test_the_zero_reconstruction_is_black():
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(ZeroReconstruction()(x), torch.zeros_like(x))


def test_the_map_of_the_zero_reconstruction_is_the_slice_itself_equalised():
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) ** 2
    for equalized, expected in ((False, x), (True, equalize(x))):
        result = AnomalyMap("none", equalize=equalized)(x, ZeroReconstruction()(x))
        torch.testing.assert_close(result, expected)


def test_principal_components_paint_what_lies_among_the_training_slices():
    """A mixture of them and of their mirror images; something else is projected."""
    training = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    components = PrincipalComponents(training, count=7)
    mixture = (0.3 * training[:1] + 0.2 * training[1:2] + 0.5 * training[2:3]).flip(3)
    torch.testing.assert_close(components(mixture), mixture, rtol=0, atol=1e-5)
    other = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    painted = components(other)
    assert painted.shape == other.shape and painted.min() >= 0 and painted.max() <= 1
    assert (painted - other).abs().mean() > 0.1
    assert not list(components.parameters())


def test_too_few_slices_for_the_components_are_refused():
    with pytest.raises(ConfigError, match="128 components take 64 training slices or more, not 63"):
        PrincipalComponents(torch.rand(63, 1, 8, 8))
