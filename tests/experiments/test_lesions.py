"""Lesions with known outlines."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.lesions import lesions
from pathology_screen.metrics.reconstruction import mean_squared_error, structural_similarity


def test_perfect_and_useless_and_without_a_reconstruction(
    make_setting, make_method, slices, lookup, identity, value
):
    maps_only = make_method(nn.Identity(), "mkd", method="mkd")
    perfect = lookup(slices.masks.clamp(0, 1), "perfect")
    report = lesions(make_setting(perfect, identity, maps_only))
    base = float((slices.masks > 0.5).float().mean())
    assert value(report, "perfect", "lesion AUPRC") == 1
    assert value(report, "identity", "lesion AUPRC") == pytest.approx(base)
    assert report.notes[0] == "8 slices of 8 people; 5 slices show a lesion."
    assert f"{base:.3f}" in report.notes[1] and report.rows[0].n == 3
    assert value(report, "identity", "healthy MSE", "") == 0
    assert value(report, "identity", "healthy SSIM", "") == 1
    assert [row.metric for row in report.rows if row.method == "mkd"] == ["lesion AUPRC"]


def test_numbers_are_those_of_the_libraries(make_setting, slices, blur, maps_of, value):
    """A slice with a finding and no outline takes no part."""
    slices = replace(slices, masks=slices.masks.clone())
    slices.masks[5] = 0
    report = lesions(make_setting(blur, slices=slices))
    slices = slices[[0, 1, 2, 3, 4, 6, 7]]
    lesion = (slices.masks > 0.5).flatten().numpy()
    expected = average_precision_score(lesion, maps_of(blur, slices).flatten().numpy())
    assert value(report, "blur", "lesion AUPRC") == pytest.approx(expected, abs=1e-9)
    pair = slices.images[:3], blur.reconstruct(slices)[:3]
    for name, metric in (("MSE", mean_squared_error), ("SSIM", structural_similarity)):
        expected = float(metric(*pair).mean())
        assert value(report, "blur", f"healthy {name}", "") == pytest.approx(expected)


def test_without_masks_or_healthy_scans_it_says_so(make_setting, slices, identity):
    bare = replace(slices, masks=torch.zeros_like(slices.masks))
    for changed in (bare, slices[~slices.healthy]):
        with pytest.raises(ConfigError, match="masks of lesions .* and healthy ones"):
            lesions(make_setting(identity, slices=changed))
