"""Detection by the image score."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.detection import detection
from pathology_screen.metrics.pooled import bootstrap_interval, pooled_auroc


def test_perfect_useless_and_wrong(make_setting, slices, identity, lookup, value):
    ill = np.where(slices.healthy, 0, 0.5)[:, None, None, None].astype("float32")
    perfect, wrong = lookup(ill, "perfect"), lookup(0.5 - ill, "wrong")
    report = detection(make_setting(perfect, identity, wrong))
    for label, expected in (("perfect", 1), ("identity", 0.5), ("wrong", 0)):
        assert value(report, label, "pathological AUROC") == expected
    assert [row.n for row in report.rows] == [8] * 3
    assert report.notes[0] == "Slices: 3 normal, 5 pathological; 8 people."


def test_auroc_is_that_of_scikit_learn_in_groups_and_local_findings_are_no_part_of_the_average(
    make_setting, slices, blur, maps_of, value
):
    scores = maps_of(blur, slices).mean(dim=(1, 2, 3)).numpy()
    (row,) = detection(make_setting(blur)).rows
    assert row.value == pytest.approx(roc_auc_score(~slices.healthy, scores), abs=1e-9)
    auroc = pooled_auroc(~slices.healthy, scores, slices.subjects)
    kept = bootstrap_interval(auroc, dict(zip(slices.subjects, slices.groups)), resamples=1000)
    assert (row.low, row.high) == pytest.approx(kept) and (row.n, row.subjects) == (8, 8)
    kinds = {"normal": 3, "global_pathology": 2, "global_artefact": 1, "local": 2}
    groups = np.repeat(list(kinds), list(kinds.values()))
    report = detection(make_setting(blur, slices=replace(slices, groups=groups)))
    expected = {}
    for group in list(kinds)[1:]:
        chosen = np.isin(groups, ("normal", group))
        expected[group] = roc_auc_score(groups[chosen] == group, scores[chosen])
        assert value(report, "blur", f"{group} AUROC") == pytest.approx(expected[group])
    average = np.mean([expected["global_pathology"], expected["global_artefact"]])
    assert value(report, "blur", "average AUROC") == pytest.approx(average)
    rows = {row.metric: row for row in report.rows}
    assert rows["global_artefact AUROC"].low is None  # a single person
    assert rows["average AUROC"].n == 6


def test_groups_that_cannot_be_compared_are_refused(make_setting, slices, identity):
    for part, name, message in (
        ("groups", "normal", "normal ones in the test section"),
        ("groups", "pathological", "normal ones in the test section"),
        ("subjects", "sub-1", "sub-1 is in the groups normal and pathological"),
    ):
        alike = replace(slices, **{part: np.full(8, name)})
        with pytest.raises(ConfigError, match=message):
            detection(make_setting(identity, slices=alike))
