"""The controls that learn nothing."""

import torch

from pathology_screen.anomaly import AnomalyMap, equalize
from pathology_screen.networks.controls import Black, Template


def test_the_template_is_the_mean_of_the_training_slices_whatever_it_sees():
    training = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    template = Template(training)
    result = template(torch.zeros(3, 1, 16, 16))
    assert result.shape == (3, 1, 16, 16)
    for image in result:
        torch.testing.assert_close(image, training.mean(dim=0))
    assert not list(template.parameters()) and template.state_dict().keys() == {"mean"}


def test_one_slice_is_its_own_template():
    training = torch.rand(1, 1, 16, 16)
    assert torch.equal(Template(training)(training), training)


def test_black_is_black():
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(Black()(x), torch.zeros_like(x))


def test_the_map_of_black_is_the_slice_itself_equalised():
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) ** 2
    for equalized, expected in ((False, x), (True, equalize(x))):
        result = AnomalyMap("none", equalize=equalized)(x, Black()(x))
        torch.testing.assert_close(result, expected)
