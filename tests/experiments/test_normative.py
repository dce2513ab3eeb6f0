"""Normative learning, with networks that know the answer or nothing."""

from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torch.nn import functional as F

from pathology_screen.anomaly import perceptual_distance
from pathology_screen.errors import ConfigError
from pathology_screen.metrics.localization import healthy_tissue
from pathology_screen.metrics.pooled import bootstrap_interval
from pathology_screen.metrics.reconstruction import structural_similarity

module = import_module("pathology_screen.experiments.normative")
PAINTED = ("ellipses", "copy-paste")
KINDS = (*PAINTED, "annotated")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation, which LPIPS rounds."""


def pooled_pixels(images, trunk=None):
    """In place of the features of a network, which take long."""
    return F.avg_pool2d(images, 32).flatten(1).numpy()


@pytest.fixture
def light(light_distance, monkeypatch):
    monkeypatch.setattr(module, "deep_features", pooled_pixels)


@pytest.fixture
def healthy_alone(slices):
    return slices[slices.healthy]


def distance(features, reference):
    """As it stands in the literature, with the root of a product of covariances."""
    one, other = (each.astype(float) for each in (features, reference))
    means = one.mean(axis=0) - other.mean(axis=0)
    own, reference = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    return means @ means + np.trace(own + reference - 2 * np.real(sqrtm(own @ reference)))


@pytest.fixture
def number(value):
    return partial(value, scoring="")


def test_a_network_that_restores_the_slice_is_perfect(
    light, make_setting, perfect, healthy_alone, number
):
    report = module.normative(make_setting(perfect, slices=healthy_alone, percentiles_of="tissue"))
    for name in ("RQI*", "ellipses AHI*", *(f"{kind} restored" for kind in PAINTED)):
        assert number(report, "perfect", name) == pytest.approx(1)
    assert all(0 < number(report, "perfect", f"{kind} CACI*") < 1 for kind in PAINTED)


def test_a_network_that_copies_keeps_everything_and_corrects_nothing(
    light, make_setting, identity, number
):
    report = module.normative(make_setting(identity))
    assert number(report, "identity", "RQI*") == pytest.approx(1)
    zero = [f"{kind} {name}*" for kind in KINDS for name in ("AHI", "CACI", "score")]
    for name in (*zero, *(f"{kind} restored" for kind in PAINTED)):
        assert number(report, "identity", name) == pytest.approx(0, abs=1e-9)
    assert not any(row.metric == "annotated restored" for row in report.rows)


def test_numbers_are_those_of_the_formulas(light, make_setting, blur, healthy_alone, number):
    setting = make_setting(blur)
    report = module.normative(setting)
    x, made = healthy_alone.images, blur.reconstruct(healthy_alone)
    error, ssim = (x - made).abs().mean((1, 2, 3)), structural_similarity(x, made)
    rqi = float(((1 - error) * (1 - error) * ssim).mean())  # LPIPS is the difference here
    assert number(report, "blur", "RQI*") == pytest.approx(rqi)
    training = pooled_pixels(setting.slices_of("training").images)
    for kind, each in module.anomalies_of(setting).items():
        image, output = each.slices.images, blur.reconstruct(each.slices)
        pixels = map(pooled_pixels, (x, image, output))
        unseen, before, after = (distance(one, training) for one in pixels)
        ahi = np.clip((before - after) / (before - unseen), 0, 1) if before > unseen else 0
        assert number(report, "blur", f"{kind} AHI*") == pytest.approx(ahi, abs=1e-4)
        conserved, kept = (
            float(structural_similarity(image, output, mask).mean())
            for mask in (each.tissue, each.slices.regions)
        )
        caci = 2 * conserved * (1 - kept) / (conserved + 1 - kept)
        assert number(report, "blur", f"{kind} CACI*") == pytest.approx(caci)
        score = (2 * rqi * caci / (rqi + caci) + ahi) / 2
        assert number(report, "blur", f"{kind} score*") == pytest.approx(score, abs=1e-4)
        if each.before is not None:
            damage, left = (
                1 - float(structural_similarity(each.before, one, each.slices.regions).mean())
                for one in (image, output)
            )
            intact = float(structural_similarity(each.before, output, each.tissue).mean())
            repaired = max(0, 1 - left / damage)
            expected = 2 * intact * repaired / (intact + repaired)
            assert number(report, "blur", f"{kind} restored") == pytest.approx(expected)
    parts = report.tables["parts"].set_index("metric")["value"]
    assert parts["healthy MAE"] == pytest.approx(float(error.mean()))
    assert parts["healthy distance"] == pytest.approx(unseen, abs=1e-5)
    assert parts["annotated distance"] == pytest.approx(after, abs=1e-5)
    bounds = report.tables["parts"].set_index("metric")[["low", "high"]].notna().all(axis=1)
    assert set(bounds.index[~bounds]) == {f"{kind} distance" for kind in ("healthy", *KINDS)}
    assert set(report.figures) == {"ellipses", "copy_paste", "annotated"}
    assert "do not compare with printed values" in report.notes[1]


def test_tissue_lies_outside_all_annotations(make_setting, slices):
    setting = make_setting()
    kinds = module.anomalies_of(setting)
    found = kinds["annotated"]
    for i in range(len(found.slices)):
        covered = torch.cat([found.slices.masks[i], found.slices.boxes[i]]) > 0
        expected = healthy_tissue(found.slices.images[i, 0].numpy(), covered.numpy()) > 0
        assert np.array_equal(found.tissue[i].numpy(), expected)
    painted = kinds["ellipses"]
    assert not (painted.tissue & painted.slices.regions).any() and painted.outlined.all()
    assert torch.equal(painted.before, slices[slices.healthy].images)


def test_a_finding_without_an_outline_has_a_distance_alone(light, make_setting, slices, identity):
    nothing = torch.zeros(0, *slices.masks.shape[2:])
    bare = replace(slices, masks=torch.zeros_like(slices.masks), boxes=(nothing,) * 8)
    report = module.normative(make_setting(identity, slices=bare))
    metrics = {row.metric for row in report.rows if row.metric.startswith("annotated")}
    assert metrics == {"annotated AHI*"}


def test_what_cannot_be_looked_at_is_refused(light, make_setting, make_method, slices, identity):
    maps_only = make_method(nn.Identity(), "mkd", method="mkd")
    with pytest.raises(ConfigError, match="reconstructions, and mkd has none"):
        module.normative(make_setting(identity, maps_only))
    with pytest.raises(ConfigError, match="slices of healthy people"):
        module.normative(make_setting(identity, slices=slices[~slices.healthy]))


def test_features_are_the_mean_of_the_last_map_of_grey_pictures():
    trunk = perceptual_distance("st_alex")
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    found = module.deep_features(images, trunk)
    mean, deviation = (torch.tensor(each)[None, :, None, None] for each in IMAGENET)
    maps = trunk.metric.net((images - mean) / deviation)[-1]
    assert found.shape == (2, 256)
    assert found == pytest.approx(maps.mean((2, 3)).numpy(), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize(
    ("index", "parts", "expected"),
    [
        ("quality_index", [[0.0, 0.1, 0.2], [0.0, 0.2, 1.3], [1, 0.5, -0.1]], [1, 0.36, 0]),
        # no way, half of it, all, beyond, and backwards; and no way to go
        (
            "anomaly_to_healthy",
            [[2, 2, 2, 2, 2, 5], [10, 10, 10, 10, 10, 5], [10, 6, 2, 1, 12, 1]],
            [0, 0.5, 1, 1, 0, 0],
        ),
        ("harmonic_mean", [[1, 0.95, 0.5, 0], [1, 0.03, 0, 0]], [1, 0.057 / 0.98, 0, 0]),
        # a restoration, half of one, a copy, something worse, and nothing to repair
        ("repaired_share", [[0.4] * 4 + [0], [0, 0.2, 0.4, 0.8, 0.1]], [1, 0.5, 0, 0, 0]),
        # (H(RQI, CACI) + AHI) / 2 of the values printed for RA and a copying autoencoder
        ("normative_score", [[0.66, 0.88], [0.16, 0], [0.22, 0.06]], [0.245, 0.88 * 0.06 / 0.94]),
    ],
)
def test_indices_are_their_formulas(index, parts, expected):
    made = torch.tensor if index == "quality_index" else np.array
    found = getattr(module, index)(*(made(part) * 1.0 for part in parts))
    assert found.tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("n", [4, 40])
def test_distance_is_that_of_the_literature(n):
    """Also of fewer slices than features, whose covariance has no full rank."""
    rng = np.random.default_rng(0)
    features = rng.normal(0.5, 1, (n, 6)) @ rng.normal(size=(6, 6))
    reference = rng.normal(size=(60, 6)) * np.arange(1, 7)
    statistic = module.frechet_distance(features, np.arange(n), module.fit_normal(reference))
    assert statistic.value == pytest.approx(distance(features, reference), rel=1e-6)
    same = module.frechet_distance(reference, np.arange(60), module.fit_normal(reference))
    assert same.value == pytest.approx(0, abs=1e-6)


def test_weights_are_repetitions_of_all_that_a_subject_has():
    rng = np.random.default_rng(0)
    features, reference = rng.normal(size=(7, 3)), rng.normal(size=(20, 3))
    subjects = np.array(["b", "a", "a", "c", "b", "d", "d"])
    statistic = module.frechet_distance(features, subjects, module.fit_normal(reference))
    assert statistic.subjects.tolist() == ["a", "b", "c", "d"]
    drawn = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 3, 0, 1]])
    for found, weights in zip(statistic.evaluate(drawn), drawn):
        often = dict(zip("abcd", weights))
        repeated = np.repeat(features, [often[name] for name in subjects], axis=0)
        assert found == pytest.approx(distance(repeated, reference), rel=1e-6)
    low, high = bootstrap_interval(statistic, resamples=100)
    assert 0 < low < high


def test_a_single_slice_has_no_distance():
    reference = np.random.default_rng(0).normal(size=(20, 3))
    fitted = module.fit_normal(reference)
    assert np.isnan(module.frechet_distance(reference[:1], ["a"], fitted).value)
    with pytest.raises(ConfigError, match="two of them"):
        module.fit_normal(reference[:1])
