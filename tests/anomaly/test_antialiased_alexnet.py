"""The anti-aliased AlexNet within the perceptual distance that is made of it."""

import pytest
import torch

from pathology_screen.anomaly import perceptual_distance


def test_st_alex_values_equal_the_published_implementation():
    """Reference values from stlpips-pytorch 0.0.2 itself, LPIPS(net="alex",
    variant="shift_tolerant", spatial=True)."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    a = (0.5 + 0.5 * torch.sin(rows / 5) * torch.cos(columns / 7))[None, None]
    b = (0.5 + 0.5 * torch.sin(rows / 5 + 1) * torch.cos(columns / 9))[None, None]
    result = perceptual_distance("st_alex")(a, b)
    sample = result[0, 0, [0, 20, 40, 63], [0, 30, 60, 95]]
    torch.testing.assert_close(
        sample, torch.tensor([0.0258837, 0.031731, 0.0272605, 0.07932]), rtol=1e-4, atol=1e-6
    )
    assert result.mean().item() == pytest.approx(0.0452365, rel=1e-4)
