"""Finding annotated boxes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pathology_screen.calibration import pixel_threshold
from pathology_screen.errors import ConfigError
from pathology_screen.experiments.localization import healthy_beside, localization, threshold_slices
from pathology_screen.metrics.localization import box_scores, box_summary, count_tagged


@pytest.fixture
def perfect(slices, lookup):
    """A method whose map is 1 in the boxes and 0 elsewhere."""
    boxes = torch.stack([(boxes > 0).any(dim=0, keepdim=True) for boxes in slices.boxes])
    return lookup(boxes.float(), "perfect")


@pytest.mark.parametrize(
    ("protocol", "section", "n"),
    [("paper", "test", 3), ("official_code", "test", 3), ("pixel_count", "calibration", 2)],
)
def test_perfect_and_useless_by_the_threshold_that_the_protocol_names(
    make_setting, perfect, identity, value, protocol, section, n
):
    setting = make_setting(perfect, identity, protocol=protocol)
    name, normals = threshold_slices(setting)
    assert name == section and len(normals) == n and set(normals.groups) == {"normal"}
    report = localization(setting)
    assert f"threshold from {n} normal slices of the {section} section" in report.notes[1]
    assert value(report, "perfect", "detected") == value(report, "perfect", "f1") == 1
    assert value(report, "identity", "detected") == value(report, "identity", "f1") == 0
    assert value(report, "identity", "fraction ratio") == 0
    ratio = value(report, "perfect", "fraction ratio")  # as if a single pixel outside were tagged
    assert 1000 < ratio < 1e6
    classes = report.tables["classes"].set_index(["method", "class"])
    assert classes.loc["perfect", "detected"].tolist() == classes.loc["perfect", "n"].tolist()
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
