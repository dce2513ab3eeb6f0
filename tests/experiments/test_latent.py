"""Latent vectors of healthy slices, pathological ones and their reconstructions."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.latent import (
    compare_latents,
    latent,
    neighbour_distances,
    umap_plane,
)
from pathology_screen.networks.introspective_vae import IntrospectiveVAE
from pathology_screen.networks.vae import VAE


class Coder(nn.Module):
    """Latent vector (mean intensity, 0); reconstructs a slice of constant intensity."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift = shift

    def encode(self, x):
        mean = x.mean(dim=(1, 2, 3)) + self.shift
        return torch.stack([mean, torch.zeros_like(mean)], dim=1), torch.zeros(len(x), 2)

    def forward(self, x):
        return torch.full_like(x, 2.0)


@pytest.fixture
def no_umap(monkeypatch):
    """A plane of the first two components in place of the UMAP, which takes long to start."""
    module = sys.modules[compare_latents.__module__]
    monkeypatch.setattr(module, "_import_umap", lambda: None)
    monkeypatch.setattr(module, "umap_plane", lambda groups, _: [each[:, :2] for each in groups])
    return monkeypatch


@pytest.fixture
def slices(slices):
    """Slices of seven healthy people, and five others."""
    wide = slices[[0, 1, 2, 0, 1, 2, 0, *range(3, 8)]]
    shades = torch.linspace(0.9, 1, 12)[:, None, None, None]
    return replace(wide, images=wide.images * shades, subjects=np.array(list("abcdefghijkl")))


def test_neighbours_by_hand():
    """Points on a line; everyone's own slices do not count."""
    references = np.array([[0.0], [1.0], [3.0], [7.0]])

    def distances(people, neighbours):
        people = list(people)
        return neighbour_distances(references, people, references, people, neighbours).tolist()

    assert distances("abcd", 2) == [(1 + 3) / 2, (1 + 2) / 2, (2 + 3) / 2, (4 + 6) / 2]
    assert distances("aabc", 1) == [3, 2, 2, 4]
    outside = neighbour_distances(np.array([[10.0]]), ["x"], references, list("abcd"), 3)
    assert outside.tolist() == [(3 + 7 + 9) / 3]
    euclidean = neighbour_distances(np.array([[3.0, 4.0]]), ["x"], np.zeros((1, 2)), ["a"], 1)
    assert euclidean.tolist() == [5.0]
    for people in ("abcd", "aaab"):
        with pytest.raises(ConfigError, match="healthy slices of more people"):
            distances(people, 4)


@pytest.mark.parametrize(("people", "expected"), [(6, 0.96), (7, 0.97), (8, 0.98), (40, 1.0)])
def test_without_any_difference_the_ratio_is_a_little_below_1(people, expected):
    """The figures of the notes: 400 studies, healthy and pathological latent vectors of 16
    normal dimensions alike. A healthy slice has one person fewer to be near to."""
    rng, ratios, names = np.random.default_rng(0), [], np.arange(people)
    for _ in range(400):
        healthy, others = rng.normal(size=(2, people, 16))
        own = neighbour_distances(healthy, names, healthy, names)
        ratios.append(neighbour_distances(others, -1 - names, healthy, names).mean() / own.mean())
    assert np.mean(ratios) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("kind", [VAE, IntrospectiveVAE])
def test_the_vectors_are_those_that_predictions_are_decoded_from(kind, slices, make_method):
    """The very slices, batches and weights of `predict`."""
    torch.manual_seed(0)
    network = kind(channels=(8, 8, 8, 8, 8), latent=6)
    method = make_method(network)
    vectors = method.predictor.encode(slices.images)
    assert vectors.shape == (12, 6) and not vectors.requires_grad
    with torch.no_grad():
        decoded = network.decoder(vectors)
    torch.testing.assert_close(decoded, method.predict(slices)["residual"].output)


def test_the_numbers_and_the_marks_of_the_report(make_setting, slices, make_method, value, no_umap):
    halves = slices[slices.healthy], slices[~slices.healthy]
    method, shifted = make_method(Coder(), "vae"), make_method(Coder(shift=3.0), "moved")
    report = latent(make_setting(method, shifted, slices=slices))
    groups = compare_latents(method, *halves)
    encoded = halves[1].images.mean(dim=(1, 2, 3))
    assert groups["pathological"].latents[:, 0] == pytest.approx(encoded.numpy())
    nearest = np.sort(1 - groups["healthy"].latents[:, 0])[:5]  # to white: clamped before
    assert groups["pseudo-healthy"].distances == pytest.approx(np.full(5, nearest.mean()))
    means = {name: float(group.distances.mean()) for name, group in groups.items()}
    for name, mean in means.items():
        assert value(report, "vae", f"{name} distance", "") == pytest.approx(mean)
        if name != "healthy":
            ratio = value(report, "vae", f"{name} / healthy", "")
            assert ratio == pytest.approx(mean / means["healthy"])
        if name != "pseudo-healthy":  # white, which does not move along
            assert value(report, "moved", f"{name} distance", "") == pytest.approx(mean, rel=1e-4)
    rows = {row.metric: row for row in report.rows if row.method == "vae"}
    counts = [(row.n, row.subjects) for row in rows.values()]
    assert counts == [(7, 7), (5, 5), (5, 5), (5, 12), (5, 12)]
    assert "0.96 with 6 healthy people" in report.notes[2]
    panel, _ = report.figures["umap"].subfigs
    axes = {axis.get_title(): axis for axis in panel.axes}
    assert set(axes) == {"vae", "1", "2", "3", "1'", "2'", "3'", "a", "b"}
    order = groups["pathological"].distances.argsort()
    for mark, place in zip("123", order[[0, 2, 4]]):  # the nearest, the median and the farthest
        picture = axes[mark].images[0].get_array()
        assert np.array_equal(picture, halves[1].images[place, 0].numpy())
    assert (axes["1'"].images[0].get_array() == 1).all()


def test_without_latent_vector_or_umap_it_says_so(make_setting, make_method, identity, no_umap):
    with pytest.raises(ConfigError, match="has no latent vector; ra, si_vae and vae have one"):
        latent(make_setting(identity))
    no_umap.undo()
    no_umap.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"pip install pathology-screen\[plots\]"):
        latent(make_setting(make_method(Coder())))


@pytest.mark.slow  # numba compiles for half a minute
def test_the_plane_is_a_function_of_the_seed():
    pytest.importorskip("umap", reason="umap-learn (the extra `plots`) is not installed")
    rng = np.random.default_rng(0)
    near, far = rng.normal(0, 1, (12, 8)), rng.normal(20, 1, (9, 8))
    first, again, other = (umap_plane([near, far], seed) for seed in (0, 0, 1))
    assert [part.shape for part in first] == [(12, 2), (9, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.allclose(first[0], other[0])
    gap = np.linalg.norm(first[0].mean(axis=0) - first[1].mean(axis=0))
    assert gap > 2 * first[0].std(axis=0).max()
    assert umap_plane([near[:6], far[:1]], 0)[1].shape == (1, 2)
