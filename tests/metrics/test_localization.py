"""The localisation protocol: Figure 7, each rule by itself, and a literal version of the released
code."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.handlers import IgniteMetricHandler

from pathology_screen.calibration import pixel_threshold
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.metrics import LocalizationMetric, bootstrap_interval, box_scores, pooled_mean
from pathology_screen.metrics.localization import PROTOCOLS

CLASSES = ("edema", "mass")


def target(boxes, healthy, labels=None):
    """A target of lists (K, H, W) and (H, W)."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    return {
        "boxes": boxes,
        "healthy": torch.as_tensor(healthy, dtype=torch.float32)[None],
        "labels": ["mass"] * len(boxes) if labels is None else labels,
    }


def localize(anomaly_map, one, threshold=0.0, protocol="paper"):
    metric = LocalizationMetric(threshold, CLASSES, protocol)
    metric([torch.as_tensor(anomaly_map, dtype=torch.float64)[None]], [one])
    return metric.aggregate()


def random_case(rng, size=12, boxes=3):
    anomaly_map = rng.gamma(1, 0.3, (size, size)) * (rng.random((size, size)) < 0.7)
    masks = (rng.random((boxes, size, size)) * 1.6 - 0.8).clip(0, 1)  # half of them 0
    healthy = (rng.random((size, size)) < 0.5).astype(float)
    healthy[0, 0] = 1
    return anomaly_map, masks, healthy


@pytest.fixture
def figure_7():
    """A map with 3.16 over the box and 13.95 over healthy tissue, and 99 over another box and the
    background."""
    anomaly_map = np.zeros((6, 6))
    anomaly_map[0, :4] = 0.79  # box
    anomaly_map[2, :3] = 4.65  # healthy
    anomaly_map[3], anomaly_map[5] = 99, 99
    boxes = np.zeros((1, 6, 6))
    boxes[0, 0] = 1
    healthy = np.zeros((6, 6))
    healthy[1:3] = 1
    return anomaly_map, target(boxes, healthy)


@pytest.mark.parametrize(
    ("protocol", "false_positives", "f1"),
    [
        ("official_code", 4, 1 / 3),
        ("paper", 13.95 / 3.16, 0.3118),
        ("pixel_count", 3 / 4, 2 / 2.75),
    ],
)
def test_figure_7(figure_7, protocol, false_positives, f1):
    result = localize(*figure_7, protocol=protocol)
    assert result["false_positives"] == pytest.approx(false_positives)
    assert result["f1"] == pytest.approx(f1, abs=1e-4)
    assert (result["detected"], result["n"], result["empty"]) == (1, 1, 0)
    assert result["box_fraction"] == pytest.approx(4 / 6)
    assert result["healthy_fraction"] == pytest.approx(3 / 12)
    assert result["fraction_ratio"] == pytest.approx((4 / 6) / (3 / 12))


def test_the_papers_ratio_in_figure_7_is_4_41(figure_7):
    assert localize(*figure_7)["false_positives"] == pytest.approx(4.41, abs=0.005)


def released_code(anomaly_map, box, healthy, threshold):
    """TP, FP and F1 of one box, as the released code computes them."""
    kept = anomaly_map * (anomaly_map > threshold)
    tp = int(np.count_nonzero(kept * box) > 0.1 * np.count_nonzero(box))
    fp = int(np.sum(kept * healthy) / max(np.sum(kept * box), 1))
    precision = tp / max(tp + fp, 1)
    return tp, fp, 2 * precision * tp / (precision + tp + 1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1.5))
def test_equals_the_released_code_written_literally(seed, threshold):
    anomaly_map, masks, healthy = random_case(np.random.default_rng(seed))
    anomaly_map, masks = anomaly_map.round(3), masks.round(2)
    metric = LocalizationMetric(threshold, CLASSES, "official_code")
    rows = metric([torch.from_numpy(anomaly_map)[None]], [target(masks, healthy)])
    scores = box_scores(rows, "official_code")
    weights = masks.astype(np.float32).astype(float)
    expected = [released_code(anomaly_map, box, healthy, threshold) for box in weights]
    assert scores["detected"].tolist() == [tp for tp, _, _ in expected]
    assert scores["false_positives"].tolist() == [fp for _, fp, _ in expected]
    assert scores["f1"] == pytest.approx([f1 for _, _, f1 in expected], abs=1e-7)
    assert metric.aggregate()["f1"] == pytest.approx(
        np.mean([f1 for _, _, f1 in expected]), abs=1e-7
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("tagged", "detected"), [(2, 0), (3, 1), (0, 0)])
def test_more_than_a_tenth_of_the_box_must_be_tagged(protocol, tagged, detected):
    anomaly_map, boxes, healthy = np.zeros((5, 8)), np.zeros((1, 5, 8)), np.zeros((5, 8))
    boxes[0, :4, :5] = 1  # 20 pixels, of which 2 are exactly a tenth
    healthy[4] = 1
    anomaly_map[0, :tagged] = 0.3
    result = localize(anomaly_map, target(boxes, healthy), protocol=protocol)
    assert result["detected"] == detected
    assert result["f1"] == detected  # no false positive: 2 / (2 + 0)
    assert result["box_fraction"] == tagged / 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_box_without_activation_is_a_miss_and_has_no_false_positives(protocol):
    anomaly_map, boxes, healthy = np.zeros((4, 4)), np.zeros((1, 4, 4)), np.ones((4, 4))
    boxes[0, 0], healthy[0] = 1, 0
    anomaly_map[1:] = 0.7
    result = localize(anomaly_map, target(boxes, healthy), protocol=protocol)
    assert (result["n"], result["detected"], result["f1"], result["fraction_ratio"]) == (1, 0, 0, 0)
    assert result["healthy_fraction"] == 1
    assert math.isnan(result["false_positives"])
    row = LocalizationMetric(0, CLASSES)(
        [torch.as_tensor(anomaly_map)[None]], [target(boxes, healthy)]
    )
    by_box = box_scores(row, protocol)["false_positives"][0]
    assert by_box == math.floor(12 * 0.7) if protocol == "official_code" else math.isnan(by_box)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_box_that_vanished_in_resizing_is_a_miss_that_counts(protocol):
    boxes, healthy = np.zeros((2, 4, 4)), np.zeros((4, 4))
    boxes[1, 0], healthy[2:] = 1, 1
    result = localize(np.ones((4, 4)), target(boxes, healthy), protocol=protocol)
    assert (result["n"], result["detected"], result["empty"]) == (2, 1, 1)
    assert result["box_fraction"] == 0.5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_background_in_a_box_counts_as_box_and_nowhere_else(protocol):
    boxes, healthy, anomaly_map = np.zeros((1, 4, 10)), np.zeros((4, 10)), np.zeros((4, 10))
    boxes[0, :2] = 1  # 20 pixels, the upper row of which is background
    healthy[2] = 1  # row 3 is background, too
    anomaly_map[1, :2] = 1
    anomaly_map[3] = 50
    result = localize(anomaly_map, target(boxes, healthy), protocol=protocol)
    assert result["detected"] == 0  # 2 of 20, though 2 of the 10 with tissue
    anomaly_map[0, :1] = 1
    result = localize(anomaly_map, target(boxes, healthy), protocol=protocol)
    assert (result["detected"], result["false_positives"], result["f1"]) == (1, 0, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_boxes_of_the_slice_are_ignored(protocol):
    boxes, healthy, anomaly_map = np.zeros((2, 6, 6)), np.zeros((6, 6)), np.zeros((6, 6))
    boxes[0, 0], boxes[1, 1] = 1, 1
    healthy[2:] = 1
    anomaly_map[:2], anomaly_map[2:] = 5, 2
    both = localize(anomaly_map, target(boxes, healthy), protocol=protocol)
    alone = localize(anomaly_map, target(boxes[:1], healthy), protocol=protocol)
    assert both["false_positives"] == alone["false_positives"]
    assert both["f1"] == alone["f1"] < 1
    assert (both["n"], both["detected"]) == (2, 2)


def test_a_soft_mask_weighs_values_and_counts_pixels():
    boxes, healthy, anomaly_map = np.zeros((1, 3, 4)), np.zeros((3, 4)), np.zeros((3, 4))
    boxes[0, 0] = [0.25, 1, 1, 0.5]
    anomaly_map[0] = [4, 2, 0, 2]
    healthy[1], anomaly_map[1] = (
        [1, 1, 0.6, 0.4],
        [1, 1, 6, 100],
    )  # 0.4 is not healthy, 0.6 is in full
    assert localize(anomaly_map, target(boxes, healthy))["false_positives"] == pytest.approx(
        8 / (1 + 2 + 1)
    )
    counted = localize(anomaly_map, target(boxes, healthy), protocol="pixel_count")
    assert counted["false_positives"] == pytest.approx(3 / 3)
    assert counted["box_fraction"] == 3 / 4


def test_the_threshold_itself_is_not_tagged():
    boxes, healthy = np.zeros((1, 2, 4)), np.zeros((2, 4))
    boxes[0, 0], healthy[1] = 1, 1
    anomaly_map = np.array([[0.5, 0.5, 0.5, 0.6], [0.5, 0.5, 0.7, 0.0]])
    result = localize(anomaly_map, target(boxes, healthy), threshold=0.5)
    assert (result["box_fraction"], result["healthy_fraction"]) == (0.25, 0.25)
    assert result["false_positives"] == pytest.approx(0.7 / 0.6)


def test_only_the_released_code_depends_on_the_unit_of_the_map():
    rng = np.random.default_rng(0)
    anomaly_map, masks, healthy = random_case(rng)
    results = {
        (protocol, unit): localize(
            unit * anomaly_map, target(masks, healthy), 0.2 * unit, protocol
        )["per_class"]["mass"]
        for protocol in PROTOCOLS
        for unit in (0.125, 1, 64)
    }
    for protocol in ("paper", "pixel_count"):
        assert results[protocol, 0.125] == pytest.approx(results[protocol, 1])
        assert results[protocol, 64] == pytest.approx(results[protocol, 1])
    f1 = [results["official_code", unit]["f1"] for unit in (0.125, 1, 64)]
    assert len(set(f1)) > 1
    assert {result["detected"] for result in results.values()} == {3}


def test_only_pixel_counts_withstand_any_rising_function():
    anomaly_map, masks, healthy = random_case(np.random.default_rng(1))
    one = target(masks, healthy)
    raised = {
        protocol: (
            localize(anomaly_map, one, 0.25, protocol)["f1"],
            localize(anomaly_map**2, one, 0.25**2, protocol)["f1"],
        )
        for protocol in PROTOCOLS
    }
    assert raised["pixel_count"][0] == raised["pixel_count"][1]
    assert raised["paper"][0] != pytest.approx(raised["paper"][1], abs=1e-3)


def test_the_fraction_ratio_unmasks_a_map_that_tags_everywhere():
    """11 % of everything is enough to detect a large box; the ratio says that it was chance."""
    rng = np.random.default_rng(2)
    boxes, healthy = np.zeros((1, 128, 128)), np.ones((128, 128))
    boxes[0, 30:100, 30:100], healthy[30:100, 30:100] = 1, 0
    blind = (rng.random((128, 128)) < 0.115).astype(float)
    seeing = blind * (healthy + 0.1 * boxes[0]) + 2 * boxes[0] * (rng.random((128, 128)) < 0.4)
    assert localize(blind, target(boxes, healthy))["detected"] == 1
    assert localize(blind, target(boxes, healthy))["fraction_ratio"] == pytest.approx(1, abs=0.1)
    assert localize(seeing, target(boxes, healthy))["fraction_ratio"] > 3
    clean = localize(seeing * boxes[0], target(boxes, healthy))
    assert clean["fraction_ratio"] == math.inf
    assert math.isnan(localize(np.zeros((128, 128)), target(boxes, healthy))["fraction_ratio"])


def test_the_table_of_classes_adds_up():
    rng = np.random.default_rng(3)
    metric = LocalizationMetric(0.5, ("absent", "edema", "mass"))
    labels = [["mass", "edema", "mass"], ["edema", "edema", "mass"]]
    for names in labels:
        anomaly_map, masks, healthy = random_case(rng)
        metric([torch.from_numpy(anomaly_map)[None]], [target(masks, healthy, names)])
    result = metric.aggregate()
    assert list(result["per_class"]) == ["edema", "mass"]
    assert [row["n"] for row in result["per_class"].values()] == [3, 3]
    assert sum(row["detected"] for row in result["per_class"].values()) == result["detected"]
    assert np.mean([row["f1"] for row in result["per_class"].values()]) == pytest.approx(
        result["f1"]
    )  # over boxes
    scores = box_scores(metric.get_buffer())
    assert scores["label"].tolist() == [2, 1, 2, 1, 1, 2]
    assert result["per_class"]["mass"]["f1"] == pytest.approx(scores["f1"][[0, 2, 5]].mean())


def test_batches_lists_and_collated_targets_give_the_same():
    rng = np.random.default_rng(4)
    items = []
    for labels in (["mass", "edema"], ["edema", "edema"], ["mass", "mass"]):
        anomaly_map, masks, healthy = random_case(rng, boxes=2)
        items.append(
            target(masks, healthy, labels) | {"map": torch.from_numpy(anomaly_map)[None].float()}
        )
    maps = torch.stack([item["map"] for item in items])

    def rows(y_pred, y):
        metric = LocalizationMetric(0.3, CLASSES)
        metric(y_pred, y)
        return metric.get_buffer()

    expected = rows(maps, items)
    assert expected.shape == (6, 7)
    assert torch.equal(rows([MetaTensor(one) for one in maps], items), expected)
    batch = next(iter(DataLoader(Dataset(items), batch_size=3)))
    assert torch.equal(rows(batch["map"], batch), expected)
    assert torch.equal(
        rows([one["map"] for one in decollate_batch(batch)], decollate_batch(batch)), expected
    )
    one_by_one = LocalizationMetric(0.3, CLASSES)
    for item in items:
        one_by_one([item["map"]], [item])
    assert torch.equal(one_by_one.get_buffer(), expected)
    one_by_one.reset()
    with pytest.raises(ConfigError, match="no box was added"):
        one_by_one.aggregate()


def test_images_without_boxes_add_nothing():
    rng = np.random.default_rng(5)
    anomaly_map, masks, healthy = random_case(rng)
    maps = torch.from_numpy(anomaly_map)[None]
    metric = LocalizationMetric(0.3, CLASSES)
    assert metric([maps], [target(masks[:0], healthy)]).shape == (0, 7)
    metric([maps, maps], [target(masks, healthy), target(masks[:0], 0 * healthy)])
    assert metric.aggregate()["n"] == 3


def test_it_runs_as_a_monai_handler():
    rng = np.random.default_rng(6)
    items = [
        target(*random_case(rng)[1:]) | {"map": torch.from_numpy(random_case(rng)[0])[None]}
        for _ in range(4)
    ]
    engine = Engine(lambda _, batch: batch)
    handler = IgniteMetricHandler(
        LocalizationMetric(0.3, CLASSES, "pixel_count"),
        output_transform=lambda out: ([i["map"] for i in out], out),
    )
    handler.attach(engine, "localisation")
    state = engine.run([items[:3], items[3:]])
    direct = LocalizationMetric(0.3, CLASSES, "pixel_count")
    direct([item["map"] for item in items], items)
    assert state.metrics["localisation"] == direct.aggregate()
    assert state.metrics["f1"] == direct.aggregate()["f1"]
    assert state.metric_details["localisation"].shape == (12, 7)


def test_boxes_are_scored_by_themselves_for_a_bootstrap_over_subjects():
    rng = np.random.default_rng(7)
    metric, subjects = LocalizationMetric(0.5, CLASSES), []
    for subject in range(8):
        anomaly_map, masks, healthy = random_case(rng, boxes=1 + subject % 3)
        rows = metric([torch.from_numpy(anomaly_map)[None]], [target(masks, healthy)])
        subjects += [f"sub-{subject}"] * len(rows)
    interval = bootstrap_interval(pooled_mean(box_scores(metric.get_buffer())["f1"], subjects))
    assert interval.value == pytest.approx(metric.aggregate()["f1"])
    assert interval.low < interval.value < interval.high


def test_a_threshold_from_healthy_maps_in_under_a_second():
    """1000 maps of 128 x 128, background of zeros included, at 5 % of all their pixels."""
    maps = np.random.default_rng(8).gamma(1, size=(1000, 1, 128, 128)).astype(np.float32)
    maps[:, :, :60] = 0
    started = time.process_time()
    threshold = pixel_threshold(maps, 0.05)
    assert time.process_time() - started < 1
    assert (maps > threshold).mean() == pytest.approx(0.05, abs=1e-6)
    assert (maps > threshold).mean() <= 0.05
    boxes, healthy = np.zeros((1, 128, 128)), np.zeros((128, 128))
    boxes[0, 100:], healthy[60:100] = 1, 1
    metric = LocalizationMetric(threshold, CLASSES)
    metric(torch.from_numpy(maps[:100]), [target(boxes, healthy)] * 100)
    assert metric.aggregate()["healthy_fraction"] == pytest.approx(
        0.05 * 128 / 68, abs=0.003
    )  # of tissue it is more


BAD = {
    "a negative map": (lambda m, t: (-m, t), ConfigError, "the anomaly map holds values"),
    "NaN in the map": (lambda m, t: (m * math.nan, t), InputError, "not_finite"),
    "a mask of counts": (
        lambda m, t: (m, t | {"boxes": 255 * t["boxes"]}),
        ConfigError,
        "a box holds values",
    ),
    "another size": (lambda m, t: (m[:, :5], t), ConfigError, "do not go together"),
    "a batch for an image": (lambda m, t: (m[None], t), ConfigError, "do not go together"),
    "too few labels": (
        lambda m, t: (m, t | {"labels": ["mass"]}),
        ConfigError,
        "1 labels do not go together",
    ),
    "an unknown class": (
        lambda m, t: (m, t | {"labels": ["mass", "?"] + ["mass"]}),
        ConfigError,
        "unknown classes",
    ),
    "no healthy tissue": (
        lambda m, t: (m, t | {"healthy": 0 * t["healthy"]}),
        InputError,
        "no_tissue",
    ),
    "no labels": (
        lambda m, t: (m, {k: v for k, v in t.items() if k != "labels"}),
        ConfigError,
        "lacks labels",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_scored_is_refused(name):
    anomaly_map, masks, healthy = random_case(np.random.default_rng(9))
    spoil, error, message = BAD[name]
    bad_map, bad_target = spoil(torch.from_numpy(anomaly_map + 0.01)[None], target(masks, healthy))
    metric = LocalizationMetric(0.1, CLASSES)
    with pytest.raises(error, match=message):
        metric([bad_map], [bad_target])
    assert len(metric) == 0


def test_wrong_use_is_refused():
    maps = torch.zeros(2, 1, 4, 4)
    for targets in (None, [], [{}], torch.zeros(2, 1, 4, 4)):
        with pytest.raises(ConfigError, match="each anomaly map needs one target"):
            LocalizationMetric(0.1, CLASSES)(maps, targets)
    for wrong in (
        {"threshold": -1.0},
        {"threshold": math.nan},
        {"protocol": "mine"},
        {"classes": ["a", "a"]},
    ):
        with pytest.raises(ConfigError):
            LocalizationMetric(**({"threshold": 0.1, "classes": CLASSES} | wrong))
    with pytest.raises(ConfigError, match="one of paper, official_code, pixel_count"):
        box_scores(torch.zeros(1, 7), "mine")
