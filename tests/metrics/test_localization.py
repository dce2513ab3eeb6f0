"""The localisation protocol: Figure 7, each rule, and a literal version of the code."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literal import released_box

from pathology_screen.errors import InputError
from pathology_screen.metrics.localization import (
    PROTOCOLS,
    box_scores,
    box_summary,
    count_tagged,
    healthy_tissue,
)

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


def count(anomaly_map, boxes, healthy, threshold=0.0):
    """Counts of arrays (H, W), (K, H, W) and (H, W)."""
    arrays = (np.asarray(anomaly_map)[None], np.asarray(boxes), np.asarray(healthy)[None])
    return count_tagged(*map(torch.from_numpy, arrays), threshold)


def localize(anomaly_map, boxes, healthy, threshold=0.0, protocol="paper"):
    return box_summary(box_scores(count(anomaly_map, boxes, healthy, threshold), protocol))


def random_case(seed, size=12, boxes=3):
    rng = np.random.default_rng(seed)
    anomaly_map = rng.gamma(1, 0.3, (size, size)) * (rng.random((size, size)) < 0.7)
    masks = (rng.random((boxes, size, size)) * 1.6 - 0.8).clip(0, 1)  # half of them 0
    healthy = (rng.random((size, size)) < 0.5).astype(float)
    healthy[0, 0] = 1
    return anomaly_map, masks, healthy


def empty(rows, columns, boxes=1):
    """A map, boxes and healthy tissue of nothing."""
    shape = (rows, columns)
    return np.zeros(shape), np.zeros((boxes, *shape)), np.zeros(shape)


@pytest.mark.parametrize(
    ("protocol", "false_positives", "f1"),
    [
        ("official_code", 4, 1 / 3),
        ("paper", 13.95 / 3.16, 0.3118),  # printed as 4.41
        ("pixel_count", 3 / 4, 2 / 2.75),
    ],
)
def test_figure_7(protocol, false_positives, f1):
    """3.16 over the box and 13.95 over healthy tissue, and 99 over another box and background."""
    anomaly_map, boxes, healthy = empty(6, 6)
    anomaly_map[0, :4], anomaly_map[2, :3], anomaly_map[3], anomaly_map[5] = 0.79, 4.65, 99, 99
    boxes[0, 0], healthy[1:3] = 1, 1
    result = localize(anomaly_map, boxes, healthy, protocol=protocol)
    shares = {"box_fraction": 4 / 6, "healthy_fraction": 3 / 12, "fraction_ratio": 8 / 3}
    expected = {"n": 1, "detected": 1, "f1": f1, "false_positives": false_positives, "empty": 0}
    assert result == pytest.approx(expected | shares, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1.5))
def test_equals_the_released_code_written_literally(seed, threshold):
    anomaly_map, masks, healthy = random_case(seed)
    anomaly_map, masks = anomaly_map.round(3), masks.round(2)
    scores = box_scores(count(anomaly_map, masks, healthy, threshold), "official_code")
    expected = [released_box(anomaly_map, box, healthy, threshold) for box in masks]
    tp, fp, f1 = zip(*expected)
    assert tuple(scores["detected"]) == tp and tuple(scores["false_positives"]) == fp
    assert scores["f1"] == pytest.approx(f1, abs=1e-7)
    assert box_summary(scores)["f1"] == pytest.approx(np.mean(f1), abs=1e-7)


@every_protocol
def test_more_than_a_tenth_of_the_box_must_be_tagged_background_included(protocol):
    for tagged, detected in ((2, 0), (3, 1), (0, 0)):
        anomaly_map, boxes, healthy = empty(5, 8)
        boxes[0, :4, :5], healthy[4] = 1, 1  # 20 pixels, of which 2 are exactly a tenth
        anomaly_map[0, :tagged], anomaly_map[:4, 5:] = 0.3, 50  # neither box nor healthy
        result = localize(anomaly_map, boxes, healthy, protocol=protocol)
        assert result["detected"] == result["f1"] == detected  # no false positive: 2 / (2 + 0)
        assert result["box_fraction"] == tagged / 20


@every_protocol
def test_boxes_without_activation_or_pixels_are_misses_that_count(protocol):
    anomaly_map, boxes, healthy = empty(4, 4)
    boxes[0, 0], healthy[1:], anomaly_map[1:] = 1, 1, 0.7
    scores = box_scores(count(anomaly_map, boxes, healthy), protocol)
    result = box_summary(scores)
    assert (result["n"], result["detected"], result["f1"], result["fraction_ratio"]) == (1, 0, 0, 0)
    assert result["healthy_fraction"] == 1 and math.isnan(result["false_positives"])
    by_box = scores["false_positives"][0]
    assert by_box == math.floor(12 * 0.7) if protocol == "official_code" else math.isnan(by_box)
    _, boxes, healthy = empty(4, 4, boxes=2)  # the first vanished in resizing
    boxes[1, 0], healthy[2:] = 1, 1
    result = localize(np.ones((4, 4)), boxes, healthy, protocol=protocol)
    assert (result["n"], result["detected"], result["empty"]) == (2, 1, 1)
    assert result["box_fraction"] == 0.5


@every_protocol
def test_other_boxes_of_the_slice_are_ignored(protocol):
    anomaly_map, boxes, healthy = empty(6, 6, boxes=2)
    boxes[0, 0], boxes[1, 1], healthy[2:] = 1, 1, 1
    anomaly_map[:2], anomaly_map[2:] = 5, 2
    both = localize(anomaly_map, boxes, healthy, protocol=protocol)
    alone = localize(anomaly_map, boxes[:1], healthy, protocol=protocol)
    assert both["false_positives"] == alone["false_positives"]
    assert both["f1"] == alone["f1"] < 1 and (both["n"], both["detected"]) == (2, 2)


def test_a_soft_mask_weighs_values_and_counts_pixels_above_the_threshold():
    anomaly_map, boxes, healthy = empty(3, 4)
    boxes[0, 0], anomaly_map[0] = [0.25, 1, 1, 0.5], [4, 2, 0, 2]
    healthy[1] = [1, 1, 0.6, 0.4]  # 0.4 is not healthy, 0.6 is in full
    anomaly_map[1] = [1, 1, 6, 100]
    assert localize(anomaly_map, boxes, healthy)["false_positives"] == pytest.approx(8 / 4)
    counted = localize(anomaly_map, boxes, healthy, protocol="pixel_count")
    assert counted["false_positives"] == pytest.approx(3 / 3)
    assert counted["box_fraction"] == 3 / 4
    above = localize(anomaly_map, boxes, healthy, threshold=2)  # which itself is not tagged
    assert (above["box_fraction"], above["healthy_fraction"]) == (1 / 4, 1 / 3)
    assert above["false_positives"] == pytest.approx(6 / (0.25 * 4))


def test_which_protocol_depends_on_unit_and_form_of_the_map():
    anomaly_map, *truth = random_case(0)
    changes = {
        "as it is": lambda x: x,
        "smaller": lambda x: x / 8,
        "larger": lambda x: 64 * x,
        "squared": lambda x: x**2,
    }
    f1 = {
        (protocol, name): localize(change(anomaly_map), *truth, change(0.2), protocol)["f1"]
        for protocol in PROTOCOLS
        for name, change in changes.items()
    }
    for protocol in ("paper", "pixel_count"):
        for unit in ("smaller", "larger"):
            assert f1[protocol, unit] == pytest.approx(f1[protocol, "as it is"])
    assert f1["official_code", "smaller"] != f1["official_code", "larger"]
    assert f1["pixel_count", "squared"] == f1["pixel_count", "as it is"]
    assert f1["paper", "squared"] != pytest.approx(f1["paper", "as it is"], abs=1e-3)


def test_the_fraction_ratio_unmasks_a_map_that_tags_everywhere():
    """11 % of everything is enough to detect a large box; the ratio says that it was chance."""
    rng = np.random.default_rng(2)
    boxes, healthy = np.zeros((1, 128, 128)), np.ones((128, 128))
    boxes[0, 30:100, 30:100], healthy[30:100, 30:100] = 1, 0
    blind = (rng.random((128, 128)) < 0.115).astype(float)
    seeing = blind * (healthy + 0.1 * boxes[0]) + 2 * boxes[0] * (rng.random((128, 128)) < 0.4)
    chance = localize(blind, boxes, healthy)
    assert chance["detected"] == 1 and chance["fraction_ratio"] == pytest.approx(1, abs=0.1)
    assert localize(seeing, boxes, healthy)["fraction_ratio"] > 3
    assert localize(seeing * boxes[0], boxes, healthy)["fraction_ratio"] == math.inf
    assert math.isnan(localize(0 * blind, boxes, healthy)["fraction_ratio"])


def test_healthy_tissue_is_tissue_outside_every_box():
    image, boxes = np.zeros((12, 12)), np.zeros((2, 12, 12))
    image[2:10, 2:10] = 100
    image[5:7, 5:7] = 1  # dark ventricles
    boxes[0, :4, :4] = boxes[1, 8:, 8:] = 1
    healthy = healthy_tissue(image, boxes)
    assert healthy.shape == (1, 12, 12) and healthy.sum() == 64 - 4 - 4
    assert healthy[0, 5:7, 5:7].all() and not healthy[0, :2].any()
    assert healthy_tissue(image, boxes[:0]).sum() == 64


def test_what_cannot_be_scored_is_refused_and_no_box_adds_nothing():
    anomaly_map, masks, healthy = random_case(9)
    assert count(anomaly_map, masks[:0], 0 * healthy).shape == (0, 6)
    with pytest.raises(InputError, match="not_finite"):
        count(anomaly_map * math.nan, masks, healthy)
    with pytest.raises(InputError, match="no_tissue"):
        count(anomaly_map, masks, 0 * healthy)
    with pytest.raises(InputError, match="no_tissue"):
        healthy_tissue(np.zeros((12, 12)), masks)
