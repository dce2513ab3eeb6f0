import pytest
import torch
from torch import nn

from pathology_screen.networks.denoising_unet import (
    DenoisingUNet,
    WeightStandardizedConv2d,
    double_convolution,
    group_norm,
)


def test_paper_profile_has_the_parameters_of_the_listed_layers():
    assert sum(parameter.numel() for parameter in DenoisingUNet().parameters()) == 7_701_825


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (1, 1, 16, 40)])
def test_shape_and_determinism(shape):
    network, x = DenoisingUNet((8, 16, 32, 64)), torch.rand(shape)
    y = network(x)
    assert y.shape == x.shape and torch.equal(y, network.train()(x))


def test_weights_are_standardized():
    convolution, x = (
        WeightStandardizedConv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        torch.rand(2, 3, 8, 8),
    )
    expected = convolution(x)
    with torch.no_grad():
        convolution.weight.mul_(3).add_(1)
    torch.testing.assert_close(convolution(x), expected, rtol=1e-3, atol=1e-3)

    weight = convolution.weight.detach().flatten(1)
    standardized = (weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)
    by_hand = nn.Conv2d(3, 4, 3)
    by_hand.load_state_dict({"weight": standardized.view(4, 3, 3, 3), "bias": convolution.bias})
    torch.testing.assert_close(
        expected, by_hand(nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")), rtol=1e-3, atol=1e-3
    )


def test_borders_are_reflected():
    """A constant image stays constant up to its edges; zeros around it would show."""
    y = double_convolution(1, 4)(torch.full((1, 1, 8, 8), 0.7))
    torch.testing.assert_close(y, y[..., 4:5, 4:5].expand(-1, -1, 8, 8), rtol=0, atol=1e-3)


def test_order_and_groups_are_those_of_the_paper():
    kinds = [WeightStandardizedConv2d, nn.SiLU, nn.GroupNorm] * 2
    assert [type(layer) for layer in double_convolution(1, 64)] == kinds
    assert [group_norm(channels).num_groups for channels in (64, 128, 256, 512)] == [8, 16, 16, 32]


def test_scripted_is_the_same():
    network, x = DenoisingUNet((8, 16, 32)), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))
