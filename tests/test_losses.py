"""Losses against values by hand, and against torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as divergence

from pathology_screen.losses import (
    exp_elbo,
    feature_discrepancy,
    kl_divergence,
    negative_elbo,
    reversed_embedding_loss,
    squared_error,
)


def test_squared_error_sums_over_the_pixels_of_each_sample():
    image = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    reconstruction = torch.tensor([[[[0.5, 1.0], [0.0, 1.0]]], [[[0.0, 0.0], [1.0, 1.0]]]])
    assert squared_error(image, reconstruction).tolist() == [0.25 + 0.25 + 1.0, 2.0]


def test_half_precision_is_summed_in_single():
    """4,096 differences of 0.5 and as many KL divergences of 0.125 exceed bfloat16's 8 bits."""
    zero, half = torch.zeros(1, 4097).bfloat16(), torch.full((1, 4097), 0.5).bfloat16()
    assert squared_error(zero, half).tolist() == [4097 * 0.25]
    assert kl_divergence(half, zero).tolist() == [4097 * 0.125]


def test_exp_elbo_by_hand():
    value = exp_elbo(torch.tensor([100.0]), torch.tensor([3.0]), 0.5, 128.0, scale=1 / 1024)
    assert value.item() == pytest.approx(math.exp(-2 * (50 + 384) / 1024))


def test_reversed_embedding_loss_by_hand():
    """One level, two samples: orthogonal (cosine 0) and equal; MSE (1 + 1 + 0 + 0) / 4."""
    a = torch.tensor([[[[1.0, 0.0]]], [[[3.0, 4.0]]]], requires_grad=True)
    b = torch.tensor([[[[0.0, 1.0]]], [[[3.0, 4.0]]]], requires_grad=True)
    loss = reversed_embedding_loss([a, a], [a, b])
    assert loss.item() == pytest.approx(0.5 + 0.5 * 0.5, abs=1e-6)
    loss.backward()
    assert a.grad.abs().sum() > 0 and b.grad.abs().sum() > 0


def test_feature_discrepancy_by_hand():
    """Orthogonal (1 + lambda * (1 + 1) / 2) and parallel (0 + lambda * (9 + 16) / 2)."""
    cloner = torch.tensor([[[[1.0, 0.0]]], [[[6.0, 8.0]]]])
    teacher = torch.tensor([[[[0.0, 1.0]]], [[[3.0, 4.0]]]])
    found = feature_discrepancy([cloner, teacher], [teacher, teacher], 0.1)
    torch.testing.assert_close(found, torch.tensor([1.1, 1.25]))


@pytest.mark.parametrize("deviation", [1.0, 0.25])
def test_negative_elbo_is_that_of_a_gaussian_up_to_a_constant(deviation):
    image, reconstruction = torch.rand(2, 3, 1, 4, 4)
    mean, log_variance = torch.randn(2, 3, 5)
    kl = divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_divergence(mean, log_variance), kl)
    likelihood = Normal(reconstruction, deviation).log_prob(image).sum((1, 2, 3)).mean()
    constant = 0.5 * 16 * math.log(2 * math.pi * deviation**2)
    output = reconstruction, mean, log_variance
    expected = kl.mean() - likelihood - constant
    torch.testing.assert_close(negative_elbo(output, image, deviation), expected)
