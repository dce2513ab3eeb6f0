"""Panels of slices chosen by rule."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.findings import healthy_beside
from pathology_screen.experiments.gallery import gallery
from pathology_screen.metrics.localization import box_scores, count_tagged


@pytest.fixture
def graded(slices, lookup):
    """A method that is perfect on scan 4, useless on scan 6, and in between on the others: maps of
    the mask, with ever more of the slice tagged beside it."""
    maps = slices.masks.clamp(0, 1).clone()
    for place, share in {3: 0.1, 4: 0.0, 5: 0.3, 6: 1.0, 7: 0.2}.items():
        maps[place, 0, : int(128 * share)] = 1
    return lookup(maps, "graded")


@pytest.fixture
def auprc(slices, maps_of):
    """Function that gives the AUPRC of each slice with a mask, by scikit-learn."""

    def measure(method):
        pairs = [(slices.masks[i] > 0.5, maps_of(method, slices)[i]) for i in range(3, 8)]
        values = [average_precision_score(*(each.flatten() for each in pair)) for pair in pairs]
        return dict(enumerate(values, start=3))

    return measure


def test_cases_are_chosen_by_the_auprc_of_the_first_run_of_the_first_method(
    make_setting, make_method, slices, graded, identity, auprc, value
):
    second = make_method(nn.Identity(), "graded")
    report = gallery(make_setting(graded, second, identity))
    table = report.tables["cases"]
    extremes = table[table["chosen"] != "median of its kind"]
    found, base = auprc(graded), auprc(identity)
    order = sorted(found, key=lambda place: -found[place])
    shown = [4, order[2], 6]
    assert order[0] == 4 and order[-1] == 6 and found[4] == 1
    assert extremes["chosen"].tolist() == ["best", "median", "worst"]
    assert extremes["subject"].tolist() == slices.subjects[shown].tolist()
    means = {"graded": (found, base), "identity": (base, base)}
    for label, runs in means.items():
        expected = [runs[0][place] for place in shown]
        assert extremes[f"{label} (residual)"].tolist() == pytest.approx(expected)
        mean = np.mean([list(run.values()) for run in runs])
        assert value(report, label, "AUPRC of a slice") == pytest.approx(mean)
    assert base[6] == pytest.approx(float((slices.masks[6] > 0.5).float().mean()))
    assert report.rows[0].n == 5 and set(report.figures) == {"cases", "findings", "evaluation"}
    map_of_best = report.figures["cases"].axes[2].images[0].get_array()
    assert np.array_equal(map_of_best, graded.predict(slices)["residual"].maps[4, 0])


def test_each_finding_has_its_median(make_setting, slices, blur, auprc):
    names = np.array(["healthy"] * 3 + ["mass"] * 3 + ["edema"] * 2)
    labels = tuple((name,) if name != "healthy" else () for name in names.tolist())
    renamed = replace(slices, pathology=names, box_labels=labels)
    table = gallery(make_setting(blur, slices=renamed)).tables["cases"]
    kinds = table[table["chosen"] == "median of its kind"].set_index("finding")
    assert list(kinds.index) == ["edema", "mass"]
    found = auprc(blur)
    for finding, members in (("mass", (3, 4, 5)), ("edema", (6, 7))):
        ranked = sorted(members, key=lambda place: -found[place])
        expected = ranked[(len(ranked) - 1) // 2]
        assert kinds.loc[finding, "subject"] == slices.subjects[expected]
        assert kinds.loc[finding, "blur (residual)"] == pytest.approx(found[expected])


def test_without_masks_the_boxes_count_and_without_either_it_says_so(
    make_setting, slices, graded, maps_of
):
    maskless = replace(slices, masks=torch.zeros_like(slices.masks))
    table = gallery(make_setting(graded, slices=maskless)).tables["cases"]
    best = table[table["chosen"] == "best"].iloc[0]
    place = slices.subjects.tolist().index(best["subject"])
    boxes = (slices.boxes[place] > 0.5).any(dim=0)
    expected = average_precision_score(boxes.flatten(), maps_of(graded, slices)[place].flatten())
    assert best["graded (residual)"] == pytest.approx(expected)
    nothing = {"boxes": (torch.zeros(0, 128, 128),) * 8, "box_labels": ((),) * 8}
    report = gallery(make_setting(graded, slices=replace(slices, **nothing)[[0, 5]]))
    assert set(report.figures) == {"cases", "findings"}
    assert report.tables["cases"]["chosen"].tolist() == ["best", "median of its kind"]
    with pytest.raises(ConfigError, match="nothing to choose"):
        gallery(make_setting(graded, slices=replace(maskless, **nothing)))


def test_the_evaluation_says_what_the_metric_counts(make_setting, slices, graded, maps_of):
    """The map of the calibration slices is 0, and so is the threshold."""
    others = tuple(boxes.flip(2) for boxes in slices.boxes)
    slices = replace(slices, other_boxes=others)
    figure = gallery(make_setting(graded, slices=slices)).figures["evaluation"]
    texts = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert [text.split("\n")[0] for text in texts] == ["best", "median", "worst"]
    columns = [axis.get_title() for axis in figure.axes if axis.get_title()]
    shown = ["input", "reconstruction", "map", "above threshold", "annotation", "tagged"]
    assert columns == shown
    boxes, healthy = slices.boxes[6].clamp(0, 1), healthy_beside(slices, 6)
    counts = count_tagged(maps_of(graded, slices)[6], boxes, healthy, 0.0)
    scores = {name: numbers[0] for name, numbers in box_scores(counts, "pixel_count").items()}
    for text in (
        f"tagged: {scores['box_fraction']:.0%} of the box",
        f"{scores['healthy_fraction']:.0%} of healthy tissue",
        f"F1 {scores['f1']:.2f}",
        "detected",
        "100% of healthy",
    ):
        assert text in texts[2]
    assert "0% of healthy" in texts[0] and "F1 1.00" in texts[0]
