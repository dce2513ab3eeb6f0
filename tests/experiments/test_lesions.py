"""Lesions with known outlines."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import average_precision_score

from pathology_screen.errors import ConfigError
from pathology_screen.experiments import EXPERIMENTS
from pathology_screen.metrics import mean_squared_error, structural_similarity

lesions = EXPERIMENTS["lesions"]


@pytest.fixture
def slices(make_setting):
    return make_setting().section("test")


def test_perfect_and_useless(make_setting, slices, make_model, lookup, identity, value):
    perfect = make_model(lookup(slices.images, slices.images + slices.masks.clamp(0, 1)), "perfect")
    report = lesions(make_setting(perfect, identity))
    lesion = slices.masks > 0.5
    shown = [i for i in range(len(slices)) if lesion[i].any() or slices.pathology[i] == "healthy"]
    base = float(lesion[shown].float().mean())
    assert value(report, "perfect", "lesion AUPRC") == 1
    assert value(report, "identity", "lesion AUPRC") == pytest.approx(base)
    assert f"{base:.3f}" in report.notes[1] and report.rows[0].n == 3
    assert value(report, "identity", "healthy MSE", "") == 0
    assert value(report, "identity", "healthy SSIM", "") == 1


def test_numbers_are_those_of_the_libraries(make_setting, slices, make_model, value):
    blur = make_model(torch.nn.AvgPool2d(5, 1, 2), "blur")
    report = lesions(make_setting(blur))
    lesion, predictions = slices.masks > 0.5, blur.predict(slices)
    shown = [i for i in range(len(slices)) if lesion[i].any() or slices.pathology[i] == "healthy"]
    maps = (predictions - slices.images).abs()[shown]
    expected = average_precision_score(lesion[shown].flatten().numpy(), maps.flatten().numpy())
    assert value(report, "blur", "lesion AUPRC") == pytest.approx(expected, abs=1e-9)
    healthy = [i for i, name in enumerate(slices.pathology) if name == "healthy"]
    pair = slices.images[healthy], predictions[healthy]
    assert value(report, "blur", "healthy MSE", "") == pytest.approx(
        float(mean_squared_error(*pair).mean())
    )
    assert value(report, "blur", "healthy SSIM", "") == pytest.approx(
        float(structural_similarity(*pair).mean())
    )


def test_what_reconstructs_nothing_has_no_errors(make_setting, make_model):
    report = lesions(make_setting(make_model(torch.nn.Identity(), "mkd", method="mkd")))
    assert [row.metric for row in report.rows] == ["lesion AUPRC"]


@pytest.mark.parametrize("missing", ["masks", "healthy"])
@pytest.mark.parametrize("method", ["ra", "mkd"])
def test_without_masks_or_healthy_scans_it_says_so(make_setting, make_model, missing, method):
    setting = make_setting(make_model(torch.nn.Identity(), method=method))
    slices = setting.section("test")
    changed = {
        "masks": replace(slices, masks=torch.zeros_like(slices.masks)),
        "healthy": slices[[i for i, name in enumerate(slices.pathology) if name != "healthy"]],
    }
    object.__setattr__(setting, "prepared", {"test": changed[missing]})
    with pytest.raises(ConfigError, match="masks of lesions .* and healthy ones"):
        lesions(setting)
