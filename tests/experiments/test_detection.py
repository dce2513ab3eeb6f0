"""Detection by the image score."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from pathology_screen.errors import ConfigError
from pathology_screen.experiments import EXPERIMENTS
from pathology_screen.metrics import bootstrap_interval, pooled_auroc

detection = EXPERIMENTS["detection"]


@pytest.fixture
def perfect(make_setting, make_model, lookup):
    """A model that makes healthy slices darker by nothing, and others by one half."""
    slices = make_setting().section("test")
    ill = torch.tensor([name != "healthy" for name in slices.pathology]).float()
    return make_model(
        lookup(slices.images, slices.images - 0.5 * ill[:, None, None, None]), "perfect"
    )


def test_perfect_useless_and_wrong(make_setting, perfect, identity, make_model, lookup, value):
    slices = make_setting().section("test")
    wrong = make_model(
        lookup(slices.images, slices.images - (perfect.predict(slices) == slices.images).float()),
        "wrong",
    )
    report = detection(make_setting(perfect, identity, wrong))
    assert value(report, "perfect", "pathological AUROC") == 1
    assert value(report, "identity", "pathological AUROC") == 0.5
    assert value(report, "wrong", "pathological AUROC") == 0
    assert [row.n for row in report.rows] == [8] * 3
    assert report.notes[0] == "Slices: 3 normal, 5 pathological; 8 people."


def test_auroc_is_that_of_scikit_learn_and_the_interval_keeps_the_groups(make_setting, make_model):
    setting = make_setting(make_model(nn.AvgPool2d(5, 1, 2), "blur"))
    slices = setting.section("test")
    (row,) = detection(setting).rows
    scores = (setting.models[0].predict(slices) - slices.images).abs().mean(dim=(1, 2, 3)).numpy()
    labels = np.array([name != "healthy" for name in slices.pathology])
    assert row.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    groups = dict(zip(slices.subjects, slices.groups))
    expected = bootstrap_interval(
        pooled_auroc(labels, scores, slices.subjects), groups, resamples=1000
    )
    assert (row.low, row.high) == pytest.approx(expected[1:]) and (row.n, row.subjects) == (8, 8)


def grouped(setting, names):
    """The setting with other groups of its test slices."""
    slices = replace(setting.section("test"), groups=tuple(names))
    object.__setattr__(setting, "prepared", {"test": slices})
    return setting


def test_each_group_stands_against_the_normal_and_local_findings_are_no_part_of_the_average(
    make_setting, make_model, value
):
    names = ["normal"] * 3 + [
        "global_pathology",
        "global_pathology",
        "global_artefact",
        "local",
        "local",
    ]
    setting = grouped(make_setting(make_model(nn.AvgPool2d(5, 1, 2), "blur")), names)
    slices = setting.section("test")
    report = detection(setting)
    scores = (setting.models[0].predict(slices) - slices.images).abs().mean(dim=(1, 2, 3)).numpy()
    expected = {}
    for group in ("global_pathology", "global_artefact", "local"):
        chosen = [i for i, name in enumerate(names) if name in ("normal", group)]
        expected[group] = roc_auc_score([names[i] == group for i in chosen], scores[chosen])
        assert value(report, "blur", f"{group} AUROC") == pytest.approx(expected[group])
    average = np.mean([expected["global_pathology"], expected["global_artefact"]])
    assert value(report, "blur", "average AUROC") == pytest.approx(average)
    artefact = next(row for row in report.rows if row.metric == "global_artefact AUROC")
    assert artefact.low is None  # a single person


def test_one_kind_of_scan_is_not_enough(make_setting, identity):
    for name in ("normal", "pathological"):
        with pytest.raises(ConfigError, match="normal ones"):
            detection(grouped(make_setting(identity), [name] * 8))
