"""Synthetic anomalies and lesions, with networks that know the answer or nothing."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.methods import CONTROLS
from pathology_screen.experiments.synthetic import KINDS, lesions, paint, synthetic
from pathology_screen.metrics.reconstruction import mean_squared_error, structural_similarity
from pathology_screen.networks.controls import PrincipalComponents
from pathology_screen.synthetic import add_ellipses

pytestmark = pytest.mark.usefixtures("light_distance")
ERRORS = [f"{kind} {error}" for kind in KINDS for error in ("MSE", "LPIPS")]
HEALTHY = ["healthy MSE", "healthy SSIM", "healthy LPIPS", "sharpness"]
RANKINGS = [f"{kind} AUPRC" for kind in KINDS]


@pytest.fixture
def healthy(slices):
    return slices[slices.healthy]


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_the_altered_pixels(make_setting, healthy, kind):
    painted = paint(healthy, kind, make_setting(percentiles_of="tissue"))
    changed = painted.images != healthy.images
    assert not (changed & (painted.masks == 0)).any() and changed.flatten(1).any(dim=1).all()
    assert set(painted.masks.unique().tolist()) == {0.0, 1.0}
    assert painted.subjects is healthy.subjects and painted.pathology.tolist() == [kind] * 3


def test_draws_are_a_function_of_seed_kind_and_place(make_setting, healthy):
    one, same = (paint(healthy, "ellipses", make_setting(seed=5)) for _ in range(2))
    fewer = paint(healthy[[0, 1]], "ellipses", make_setting(seed=5))
    other = paint(healthy, "ellipses", make_setting(seed=6))
    assert torch.equal(one.images, same.images) and not torch.equal(other.images, one.images)
    assert torch.equal(fewer.images, one.images[:2])
    expected = add_ellipses(healthy.images[1, 0].numpy(), np.random.default_rng([5, 0, 1]))
    for found, picture in zip((one.images, one.masks), expected):
        assert np.array_equal(found[1, 0].numpy(), picture)


def test_a_network_that_restores_the_slice_is_perfect(make_setting, perfect, value):
    report = synthetic(make_setting(perfect, percentiles_of="tissue"))
    assert value(report, "perfect", "ellipses AUPRC") == 1
    numbers = {row.metric: row.value for row in report.rows if not row.scoring}
    ones = {"healthy SSIM", "sharpness"}
    assert numbers == {name: float(name in ones) for name in HEALTHY + ERRORS}


def test_copies_find_nothing_and_auprc_is_that_of_scikit_learn_over_all_pixels(
    make_setting, blur, identity, healthy, maps_of, value
):
    setting = make_setting(blur, identity, seed=3)
    report = synthetic(setting)
    again, other = (synthetic(make_setting(blur, identity, seed=seed)) for seed in (3, 4))
    assert report.rows == again.rows != other.rows
    for kind in KINDS:
        painted = paint(healthy, kind, setting)
        altered, maps = painted.masks.flatten().numpy() > 0, maps_of(blur, painted)
        expected = average_precision_score(altered, maps.flatten().numpy())
        assert value(report, "blur", f"{kind} AUPRC") == pytest.approx(expected, abs=1e-9)
        share = float(painted.masks.mean())
        assert value(report, "identity", f"{kind} AUPRC") == pytest.approx(share)
        assert f"{kind} {share:.3f}" in report.notes[2]
        error = mean_squared_error(healthy.images, painted.images, painted.masks).mean()
        assert value(report, "identity", f"{kind} MSE", "") == pytest.approx(float(error))


def test_every_method_has_every_number_and_the_first_is_compared_with_each_other(
    make_setting, blur, identity, monkeypatch
):
    """Two networks and the three controls; of two training slices come two components."""
    monkeypatch.setitem(CONTROLS, "principal_components", partial(PrincipalComponents, count=2))
    names = ["template", "principal_components", "intensity"]
    controls = make_setting(methods=names, scoring=("residual",)).compared
    report = synthetic(make_setting(blur, identity, *controls))
    table = report.table().set_index(["method", "scoring"])
    kinds = [f"{kind} {number}" for kind in KINDS for number in ("MSE", "LPIPS", "AUPRC")]
    assert list(table.columns) == HEALTHY + kinds
    for label in ("blur", "identity", *names[:2]):
        assert (table.loc[(label, "residual")].str.contains("[", regex=False)).all()
    intensity = table.loc[("intensity", "equalised")]
    assert intensity[RANKINGS].all() and not intensity[HEALTHY + ERRORS].any()
    assert set(report.figures) == {"ellipses", "copy_paste"} and report.tables == {}
    assert report.notes[0].startswith("3 healthy slices of 3 people")
    differences = report.differences()
    assert list(differences.columns) == ["method", "minus", *RANKINGS]
    expected = [f"{name} (residual)" for name in ("identity", *names[:2])]
    assert differences["minus"].tolist() == [*expected, "intensity (equalised)"]


def test_lesions_are_found_by_the_perfect_by_chance_and_without_a_reconstruction(
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


def test_numbers_of_lesions_are_those_of_the_libraries(make_setting, slices, blur, maps_of, value):
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


def test_lesions_without_masks_or_healthy_scans_it_says_so(make_setting, slices, identity):
    bare = replace(slices, masks=torch.zeros_like(slices.masks))
    for changed in (bare, slices[~slices.healthy]):
        with pytest.raises(ConfigError, match="masks of lesions .* and healthy ones"):
            lesions(make_setting(identity, slices=changed))
