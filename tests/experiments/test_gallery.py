"""Panels of slices chosen by rule."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from pathology_screen.errors import ConfigError
from pathology_screen.experiments import EXPERIMENTS
from pathology_screen.experiments.localization import box_target, threshold_slices
from pathology_screen.metrics import LocalizationMetric, box_scores

gallery = EXPERIMENTS["gallery"]


@pytest.fixture
def slices(make_setting):
    return make_setting().section("test")


@pytest.fixture
def graded(make_setting, slices, make_model, lookup):
    """A model that is perfect on scan 4, useless on scan 6, and in between on the others: maps of
    the mask, with ever more of the slice tagged beside it."""
    shares = {3: 0.1, 4: 0.0, 5: 0.3, 6: 1.0, 7: 0.2}
    maps = slices.masks.clamp(0, 1).clone()
    for place, share in shares.items():
        maps[place, 0, : int(128 * share)] = 1
    normals = make_setting().section("calibration").images
    return make_model(
        lookup([*slices.images, *normals], [*(slices.images - maps), *normals]), "graded"
    )


def with_slices(setting, slices):
    object.__setattr__(setting, "prepared", setting.prepared | {"test": slices})
    return setting


def test_cases_are_chosen_by_the_auprc_of_the_first_method(make_setting, slices, graded, identity):
    report = gallery(make_setting(graded, identity))
    table = report.tables["cases"]
    extremes = table[table["chosen"] != "median of its kind"]
    auprc = {}
    for place in range(3, 8):
        map_ = (graded.predict(slices[[place]]) - slices.images[[place]]).abs()
        auprc[place] = average_precision_score(slices.masks[place].flatten() > 0.5, map_.flatten())
    order = sorted(auprc, key=lambda place: -auprc[place])
    assert order[0] == 4 and order[-1] == 6 and auprc[4] == 1
    assert extremes["chosen"].tolist() == ["best", "median", "worst"]
    assert extremes["subject"].tolist() == [slices.subjects[place] for place in (4, order[2], 6)]
    assert extremes["graded (residual)"].tolist() == pytest.approx(
        [auprc[place] for place in (4, order[2], 6)]
    )
    assert extremes["identity (residual)"][2] == pytest.approx(
        float((slices.masks[6] > 0.5).float().mean())
    )


def test_each_finding_has_its_median(make_setting, slices, make_model):
    blur = make_model(torch.nn.AvgPool2d(5, 1, 2), "blur")
    renamed = replace(slices, pathology=("healthy",) * 3 + ("mass",) * 3 + ("edema",) * 2)
    renamed = replace(
        renamed,
        box_labels=tuple((name,) if i > 2 else () for i, name in enumerate(renamed.pathology)),
    )
    maps = (blur.predict(slices) - slices.images).abs()
    auprc = {
        slices.subjects[i]: average_precision_score(
            (slices.masks[i] > 0.5).flatten(), maps[i].flatten()
        )
        for i in range(3, 8)
    }
    table = gallery(with_slices(make_setting(blur), renamed)).tables["cases"]
    kinds = table[table["chosen"] == "median of its kind"].set_index("finding")
    assert list(kinds.index) == ["edema", "mass"]
    for finding, members in (("mass", slices.subjects[3:6]), ("edema", slices.subjects[6:])):
        ranked = sorted(members, key=lambda name: -auprc[name])
        expected = ranked[(len(ranked) - 1) // 2]
        assert kinds.loc[finding, "subject"] == expected
        assert kinds.loc[finding, "blur (residual)"] == pytest.approx(auprc[expected])


def test_the_mean_over_slices_is_measured(make_setting, slices, graded, identity, value):
    report = gallery(make_setting(graded, identity))
    lesion = [i for i in range(8) if (slices.masks[i] > 0.5).any()]
    base = np.mean([float((slices.masks[i] > 0.5).float().mean()) for i in lesion])
    assert value(report, "identity", "AUPRC of a slice") == pytest.approx(base)
    assert value(report, "graded", "AUPRC of a slice") > 5 * base and report.rows[0].n == 5
    assert set(report.figures) == {"cases", "findings", "evaluation"}


def test_where_there_is_no_mask_the_boxes_count(make_setting, slices, graded):
    bare = replace(slices, masks=torch.zeros_like(slices.masks))
    table = gallery(with_slices(make_setting(graded), bare)).tables["cases"]
    best = table[table["chosen"] == "best"].iloc[0]
    place = slices.subjects.index(best["subject"])
    boxes = (slices.boxes[place] > 0.5).any(dim=0)
    map_ = (graded.predict(slices[[place]]) - slices.images[[place]]).abs()
    assert best["graded (residual)"] == pytest.approx(
        average_precision_score(boxes.flatten(), map_.flatten())
    )


def test_where_there_are_masks_alone_nothing_is_evaluated_by_boxes(make_setting, slices, graded):
    nothing = (torch.zeros(0, 128, 128),) * 8
    bare = replace(slices, boxes=nothing, box_labels=((),) * 8)
    report = gallery(with_slices(make_setting(graded), bare))
    assert set(report.figures) == {"cases", "findings"}
    with pytest.raises(ConfigError, match="nothing to choose"):
        gallery(
            with_slices(make_setting(graded), replace(bare, masks=torch.zeros_like(slices.masks)))
        )


def test_a_single_slice_is_the_best(make_setting, slices, graded):
    report = gallery(with_slices(make_setting(graded), slices[[0, 5]]))
    assert report.tables["cases"]["chosen"].tolist() == ["best", "median of its kind"]


def test_the_evaluation_says_what_the_metric_counts(make_setting, slices, graded):
    setting = make_setting(graded)
    figure = gallery(setting).figures["evaluation"]
    assert (
        threshold_slices(setting)[0] == "calibration"
    )  # on which the map is 0, and so the threshold
    rows = [axis for axis in figure.axes if axis.get_ylabel()]
    assert [axis.get_ylabel().split("\n")[0] for axis in rows] == ["best", "median", "worst"]
    maps = (graded.predict(slices) - slices.images).abs()
    current = int(slices.boxes[6].sum(dim=(1, 2)).argmax())
    counted = LocalizationMetric(0.0, sorted(set(slices.box_labels[6])))(
        [maps[6]], [box_target(slices, 6)]
    )
    scores = {
        name: numbers[current] for name, numbers in box_scores(counted, "pixel_count").items()
    }
    text = rows[2].get_ylabel()
    assert f"tagged: {scores['box_fraction']:.0%} of the box" in text
    assert (
        f"{scores['healthy_fraction']:.0%} of healthy tissue" in text
        and f"F1 {scores['f1']:.2f}" in text
    )
    assert "detected" in text and "100% of healthy" in text
    assert "0% of healthy" in rows[0].get_ylabel() and "F1 1.00" in rows[0].get_ylabel()


def test_methods_that_reconstruct_nothing_have_maps_alone(
    make_setting, make_model, graded, lookup, slices
):
    maps_only = make_model(torch.nn.Identity(), "mkd", method="mkd")
    names = [
        axis.get_title() for axis in gallery(make_setting(graded, maps_only)).figures["cases"].axes
    ]
    assert [name for name in names if name] == [
        "input",
        "graded\nreconstruction",
        "graded\nresidual",
        "mkd\nresidual",
    ]


def test_of_several_runs_the_first_is_shown_and_chosen_by(make_setting, make_model, graded, value):
    second = make_model(torch.nn.Identity(), "graded")
    alone, both = gallery(make_setting(graded)), gallery(make_setting(graded, second))
    assert both.tables["cases"].equals(alone.tables["cases"])
    pictures = [
        figure.axes[3].images[0].get_array()
        for figure in (alone.figures["cases"], both.figures["cases"])
    ]
    assert np.array_equal(*pictures)
    assert value(both, "graded", "AUPRC of a slice") < value(alone, "graded", "AUPRC of a slice")
