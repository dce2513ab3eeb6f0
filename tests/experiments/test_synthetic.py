"""Synthetic anomalies, with networks that know the answer or nothing."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from pathology_screen.experiments import EXPERIMENTS
from pathology_screen.experiments.models import CONTROLS, Chosen, load_methods, read_profile
from pathology_screen.experiments.synthetic import paint
from pathology_screen.metrics import mean_squared_error
from pathology_screen.networks.controls import PrincipalComponents
from pathology_screen.synthetic import add_ellipses

KINDS = ["ellipses", "copy-paste"]
synthetic = EXPERIMENTS["synthetic"]


@pytest.fixture(autouse=True)
def light_distance(monkeypatch):
    """The absolute difference in place of the perceptual distance, which takes long."""
    monkeypatch.setitem(
        synthetic.__globals__, "perceptual_distance", lambda name: lambda a, b: (a - b).abs()
    )


class Restorer(nn.Module):
    """Gives the healthy slice that an image shares most of its pixels with."""

    def __init__(self, healthy):
        super().__init__()
        self.healthy = healthy

    def forward(self, x):
        equal = (x[:, None] == self.healthy[None]).flatten(2).sum(dim=2)
        return self.healthy[equal.argmax(dim=1)]


@pytest.fixture
def perfect(make_setting, make_model):
    return make_model(Restorer(make_setting().section("test").healthy().images), "perfect")


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_the_altered_pixels(make_setting, kind):
    setting = make_setting(percentiles_of="tissue")
    healthy = setting.section("test").healthy()
    painted = paint(healthy, kind, setting)
    changed = painted.images != healthy.images
    assert not (changed & (painted.masks == 0)).any() and changed.flatten(1).any(dim=1).all()
    assert set(painted.masks.unique().tolist()) == {0.0, 1.0}
    assert painted.subjects == healthy.subjects and painted.pathology == (kind,) * 3


def test_draws_are_a_function_of_seed_kind_and_place(make_setting):
    healthy = make_setting().section("test").healthy()
    one, same = (paint(healthy, "ellipses", make_setting(seed=5)) for _ in range(2))
    assert torch.equal(one.images, same.images)
    assert torch.equal(
        paint(healthy[[0, 1]], "ellipses", make_setting(seed=5)).images, one.images[:2]
    )
    assert not torch.equal(paint(healthy, "ellipses", make_setting(seed=6)).images, one.images)
    image, mask = add_ellipses(healthy.images[1, 0].numpy(), np.random.default_rng([5, 0, 1]))
    assert np.array_equal(one.images[1, 0].numpy(), image) and np.array_equal(
        one.masks[1, 0].numpy(), mask
    )


def test_a_network_that_restores_the_slice_is_perfect(make_setting, perfect, value):
    report = synthetic(make_setting(perfect, percentiles_of="tissue"))
    assert value(report, "perfect", "ellipses AUPRC") == 1
    for kind in KINDS:
        assert (
            value(report, "perfect", f"{kind} MSE", "")
            == value(report, "perfect", f"{kind} LPIPS", "")
            == 0
        )
    assert (
        value(report, "perfect", "healthy MSE", "")
        == value(report, "perfect", "healthy LPIPS", "")
        == 0
    )
    assert (
        value(report, "perfect", "healthy SSIM", "")
        == value(report, "perfect", "sharpness", "")
        == 1
    )


def test_a_network_that_copies_finds_nothing(make_setting, identity, value):
    setting = make_setting(identity)
    report = synthetic(setting)
    healthy = setting.section("test").healthy()
    for kind in KINDS:
        painted = paint(healthy, kind, setting)
        assert value(report, "identity", f"{kind} AUPRC") == pytest.approx(
            float(painted.masks.mean())
        )
        error = mean_squared_error(healthy.images, painted.images, painted.masks).mean()
        assert value(report, "identity", f"{kind} MSE", "") == pytest.approx(float(error))
        assert f"{kind} {float(painted.masks.mean()):.3f}" in " ".join(report.notes)


def test_auprc_is_that_of_scikit_learn_over_all_pixels(make_setting, make_model, value):
    setting = make_setting(make_model(nn.AvgPool2d(5, 1, 2), "blur"), seed=3)
    report = synthetic(setting)
    healthy = setting.section("test").healthy()
    for kind in KINDS:
        painted = paint(healthy, kind, setting)
        map_ = (setting.models[0].predict(painted) - painted.images).abs()
        expected = average_precision_score(
            painted.masks.flatten().numpy() > 0, map_.flatten().numpy()
        )
        assert value(report, "blur", f"{kind} AUPRC") == pytest.approx(expected, abs=1e-9)


def test_the_same_seed_gives_the_same_numbers(make_setting, make_model):
    model = make_model(nn.AvgPool2d(3, 1, 1), "blur")
    first, second, other = (
        [row.value for row in synthetic(make_setting(model, seed=seed)).rows] for seed in (1, 1, 2)
    )
    assert first == pytest.approx(second, abs=1e-6) and first != pytest.approx(other, abs=1e-6)


def test_what_reconstructs_nothing_has_no_errors(make_setting, make_model, identity):
    maps_only = make_model(nn.Identity(), "mkd", method="mkd")
    report = synthetic(make_setting(identity, maps_only))
    assert {row.metric for row in report.rows if row.method == "mkd"} == {
        "ellipses AUPRC",
        "copy-paste AUPRC",
    }
    assert report.table().set_index("method").loc["mkd", "healthy MSE"] == ""
    assert set(report.figures) == {"ellipses", "copy_paste"} and report.tables == {}


def test_two_runs_of_one_label_are_seeds(make_setting, make_model, identity, value):
    blur = make_model(nn.AvgPool2d(3, 1, 1), "made")
    both = [blur, make_model(nn.Identity(), "made")]
    report = synthetic(make_setting(*both))
    (row,) = [row for row in report.rows if row.metric == "ellipses AUPRC"]
    each = [value(synthetic(make_setting(model)), "made", "ellipses AUPRC") for model in both]
    assert row.value == pytest.approx(np.mean(each)) and row.deviation == pytest.approx(
        np.std(each, ddof=1)
    )


def test_every_method_has_every_number_and_the_first_is_compared_with_each_other(
    make_setting, make_model, identity, monkeypatch, value
):
    """Two networks and the three controls; of two training slices come two components."""
    monkeypatch.setitem(CONTROLS, "principal_components", partial(PrincipalComponents, count=2))
    names = ["template", "principal_components", "intensity"]
    training = make_setting().section("training")
    controls = load_methods(
        [Chosen.parse(name) for name in names], read_profile(), training, ["residual"]
    )
    blur = make_model(nn.AvgPool2d(3, 1, 1), "blur")
    report = synthetic(make_setting(blur, identity, *controls))
    table = report.table().set_index(["method", "scoring"])
    errors = [f"{kind} {error}" for kind in KINDS for error in ("MSE", "LPIPS")]
    healthy = ["healthy MSE", "healthy SSIM", "healthy LPIPS", "sharpness"]
    assert set(table.columns) == {*healthy, *errors, *(f"{kind} AUPRC" for kind in KINDS)}
    for label in ("blur", "identity", "template", "principal_components"):
        assert (table.loc[(label, "residual")].str.contains("[", regex=False)).all()
    intensity = table.loc[("intensity", "equalised")]
    assert intensity["ellipses AUPRC"] and not intensity[errors].any()
    differences = report.differences()
    assert list(differences.columns) == ["method", "minus", "ellipses AUPRC", "copy-paste AUPRC"]
    assert differences["minus"].tolist() == [
        "identity (residual)",
        "template (residual)",
        "principal_components (residual)",
        "intensity (equalised)",
    ]
    pair = next(
        pair
        for pair in report.pairs
        if pair.metric == "ellipses AUPRC" and pair.other == "template"
    )
    blurred, mean = (value(report, name, "ellipses AUPRC") for name in ("blur", "template"))
    assert pair.difference == pytest.approx(blurred - mean)
    assert (
        differences.loc[1, "ellipses AUPRC"]
        == f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"
    )
    assert "| blur (residual) | template (residual) |" in report.markdown()
