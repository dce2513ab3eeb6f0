"""Detection by the image score, annotated boxes that are found, and what parts of Eq. 5 and of the
training add."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from pathology_screen.calibration import pixel_threshold
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments.findings import (
    CURVES,
    ablation,
    detection,
    healthy_beside,
    localization,
    threshold_slices,
    training_curves,
)
from pathology_screen.experiments.methods import SCORINGS
from pathology_screen.metrics.localization import box_scores, box_summary, count_tagged
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


@pytest.fixture
def boxed(slices, lookup):
    """A method whose map is 1 in the boxes and 0 elsewhere."""
    boxes = torch.stack([(boxes > 0).any(dim=0, keepdim=True) for boxes in slices.boxes])
    return lookup(boxes.float(), "boxed")


@pytest.mark.parametrize(
    ("protocol", "section", "n"),
    [("paper", "test", 3), ("official_code", "test", 3), ("pixel_count", "calibration", 2)],
)
def test_perfect_and_useless_by_the_threshold_that_the_protocol_names(
    make_setting, boxed, identity, value, protocol, section, n
):
    setting = make_setting(boxed, identity, protocol=protocol)
    name, normals = threshold_slices(setting)
    assert name == section and len(normals) == n and set(normals.groups) == {"normal"}
    report = localization(setting)
    assert f"threshold from {n} normal slices of the {section} section" in report.notes[1]
    assert value(report, "boxed", "detected") == value(report, "boxed", "f1") == 1
    assert value(report, "identity", "detected") == value(report, "identity", "f1") == 0
    assert value(report, "identity", "fraction ratio") == 0
    ratio = value(report, "boxed", "fraction ratio")  # as if a single pixel outside were tagged
    assert 1000 < ratio < 1e6
    classes = report.tables["classes"].set_index(["method", "class"])
    assert classes.loc["boxed", "detected"].tolist() == classes.loc["boxed", "n"].tolist()
    assert classes.loc["identity", "detected"].sum() == 0 and (classes["empty"] == 0).all()


def test_numbers_are_those_of_the_metric(make_setting, slices, blur, maps_of, value):
    """Two boxes on one slice, of one class with a box on another."""
    mirrored = [boxes.flip(2) for boxes in slices.boxes]
    boxes = (*slices.boxes[:3], torch.cat([slices.boxes[3], mirrored[3]]), *slices.boxes[4:])
    labels = (*slices.box_labels[:3], ("lesion", "mass"), *slices.box_labels[4:])
    slices = replace(slices, boxes=boxes, box_labels=labels)
    setting = make_setting(blur, slices=slices)
    report = localization(setting)
    normals = setting.slices_of("calibration")
    threshold = pixel_threshold(maps_of(blur, normals).numpy(), 0.05)
    maps = maps_of(blur, slices)
    counts = [
        count_tagged(maps[i], slices.boxes[i].clamp(0, 1), healthy_beside(slices, i), threshold)
        for i in range(3, 8)
    ]
    scores = box_scores(np.concatenate(counts), "pixel_count")
    found = box_summary(scores)
    assert report.rows[0].n == found["n"] == 6 and report.rows[0].subjects == 5
    assert value(report, "blur", "detected") == pytest.approx(found["detected"] / 6)
    assert value(report, "blur", "f1") == pytest.approx(found["f1"])
    assert value(report, "blur", "fraction ratio") == pytest.approx(found["fraction_ratio"])
    table = report.tables["classes"].set_index("class")
    names = np.array([name for each in slices.box_labels for name in each])
    for name in names:
        own = {part: values[names == name] for part, values in scores.items()}
        expected = box_summary(own) | {"threshold": threshold}
        assert table.loc[name, list(expected)].to_dict() == pytest.approx(expected, nan_ok=True)
    assert table.loc["mass", "n"] == 2


def test_other_boxes_are_not_healthy(slices):
    """A large box on the other half of a slice changes nothing but which tissue is healthy."""
    other = torch.zeros(1, 128, 128)
    other[:, :, 64:] = 1
    before, after = (
        healthy_beside(replace(slices, other_boxes=(boxes,) * 8), 3) for boxes in (other[:0], other)
    )
    assert before[..., 64:].any() and not after[..., 64:].any()
    assert torch.equal(before[..., :64], after[..., :64])
    assert not (after.bool() & (slices.boxes[3] > 0)).any()


def test_without_boxes_or_normal_slices_it_says_so(make_setting, slices, identity):
    nothing = torch.zeros(0, 128, 128)
    bare = replace(slices, boxes=(nothing,) * 8, box_labels=((),) * 8)
    with pytest.raises(ConfigError, match="no slice shows a box: the test section"):
        localization(make_setting(identity, slices=bare))
    ill = replace(slices, groups=np.full(8, "local"))
    with pytest.raises(ConfigError, match="needs normal slices, but the section test has none"):
        localization(make_setting(identity, slices=ill, protocol="paper"))


@pytest.fixture
def run(tmp_path):
    """Function that writes the log of a run."""

    def write(name, **columns):
        (tmp_path / name).mkdir()
        pd.DataFrame(columns).to_csv(tmp_path / name / "log.csv", index=False)
        return tmp_path / name / "log.csv"

    return write


def test_all_scorings_are_compared_by_boxes_and_detection_and_runs_by_their_training(
    make_setting, make_method, identity, run
):
    scorings = dict.fromkeys(SCORINGS, identity.scorings["residual"])
    blur = make_method(nn.AvgPool2d(5, 1, 2), "blur", scorings=scorings)
    log = run("a", epoch=[1], val_mse=[0.1])
    report = ablation(make_setting(blur, scoring=("eq5",), methods=(f"ra:blur={log.parent}",)))
    alone = make_setting(blur, scoring=tuple(SCORINGS))
    assert report.rows == [*localization(alone).rows, *detection(alone).rows]
    assert {row.scoring for row in report.rows} == set(SCORINGS) and report.name == "ablation"
    assert set(report.figures) == {"classes", "maps", "training"}
    assert [line.get_label() for line in report.figures["training"].axes[0].lines] == ["blur"]
    assert report.provenance["methods"][0]["scorings"].keys() == set(SCORINGS)


def test_a_line_is_the_validated_epochs_of_a_run_and_a_label_has_one_colour(run, tmp_path):
    both = {"val_mse": [0.3, None, 0.1], "val_perceptual_distance": [0.5, None, 0.4]}
    logs = [run("a", epoch=[1, 2, 3], **both), run("b", epoch=[1, 2], val_mse=[0.2, 0.1])]
    logs.append(run("c", epoch=[1], val_mse=[0.1]))
    figure = training_curves(list(zip(["ra", "ra", "ae_s"], logs)))
    mse, perceptual = figure.axes
    assert [axis.get_title() for axis in figure.axes] == list(CURVES.values())
    lines = [line.get_xydata().tolist() for line in mse.lines]
    assert lines == [[[1, 0.3], [3, 0.1]], [[1, 0.2], [2, 0.1]], [[1, 0.1]]]
    assert len(perceptual.lines) == 1
    colours = [line.get_color() for line in mse.lines]
    assert colours[0] == colours[1] != colours[2]
    assert [text.get_text() for text in mse.get_legend().get_texts()] == ["ra", "ae_s"]
    with pytest.raises(ArtifactError, match=rf"ra: {tmp_path.name} has no log.csv") as error:
        training_curves([("ra", tmp_path / "log.csv")])
    assert str(tmp_path) not in str(error.value)
