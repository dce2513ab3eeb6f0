import pytest
import torch
from torch import nn

from pathology_screen.networks.denoising_unet import (
    DenoisingUNet,
    WeightStandardizedConv2d,
    double_convolution,
    group_norm,
)


def test_sides_need_not_be_equal():
    x = torch.rand(1, 1, 16, 40)
    assert DenoisingUNet((8, 16, 32, 64))(x).shape == x.shape


def test_weights_are_standardized():
    x = torch.rand(2, 3, 8, 8)
    convolution = WeightStandardizedConv2d(3, 4, 3, padding=1, padding_mode="reflect")
    first = convolution(x)
    with torch.no_grad():
        convolution.weight.mul_(3).add_(1)
    weight = convolution.weight.detach().flatten(1)
    standardized = (weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)
    by_hand = nn.Conv2d(3, 4, 3)
    by_hand.load_state_dict({"weight": standardized.view(4, 3, 3, 3), "bias": convolution.bias})
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    for expected in (first, by_hand(padded)):
        torch.testing.assert_close(convolution(x), expected, rtol=1e-3, atol=1e-3)


def test_borders_are_reflected():
    """A constant image stays constant up to its edges; zeros around it would show."""
    y = double_convolution(1, 4)(torch.full((1, 1, 8, 8), 0.7))
    torch.testing.assert_close(y, y[..., 4:5, 4:5].expand(-1, -1, 8, 8), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("channels", "groups"), [(64, 8), (128, 16), (256, 16), (512, 32)])
def test_order_and_groups_are_those_of_the_paper(channels, groups):
    kinds = [WeightStandardizedConv2d, nn.SiLU, nn.GroupNorm] * 2
    assert [type(layer) for layer in double_convolution(1, 64)] == kinds
    assert group_norm(channels).num_groups == groups
