import pytest
import torch
from torch import nn

from pathology_screen.networks.denoising_unet import (
    DenoisingUNet,
    WeightStandardizedConv2d,
    double_convolution,
)


def test_sides_need_not_be_equal():
    x = torch.rand(1, 1, 16, 40)
    assert DenoisingUNet((8, 16, 32, 64))(x).shape == x.shape


def test_weights_are_standardized_and_borders_reflected():
    x = torch.rand(2, 3, 8, 8)
    convolution = WeightStandardizedConv2d(3, 4, 3, padding=1, padding_mode="reflect")
    weight = convolution.weight.detach().flatten(1)
    standardized = (weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    expected = nn.functional.conv2d(padded, standardized.view(4, 3, 3, 3), convolution.bias)
    torch.testing.assert_close(convolution(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("channels", "groups"), [(64, 8), (128, 16), (256, 16), (512, 32)])
def test_order_groups_and_borders_are_those_of_the_paper(channels, groups):
    layers = double_convolution(1, channels)
    kinds = [WeightStandardizedConv2d, nn.SiLU, nn.GroupNorm] * 2
    assert [type(layer) for layer in layers] == kinds
    assert layers[2].num_groups == groups and layers[0].padding_mode == "reflect"
