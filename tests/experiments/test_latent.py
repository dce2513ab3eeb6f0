"""Latent vectors of healthy slices, pathological ones and their reconstructions."""

import sys

import numpy as np
import pytest
import torch
from slice_cohort import make_slice_cohort
from torch import nn

from pathology_screen.errors import ConfigError
from pathology_screen.experiments import EXPERIMENTS, Setting
from pathology_screen.experiments.latent import compare_latents, neighbour_distances, umap_plane
from pathology_screen.experiments.models import read_profile

latent = EXPERIMENTS["latent"]


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
    monkeypatch.setattr(
        module, "umap_plane", lambda groups, seed: [group[:, :2] for group in groups]
    )


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    """Datalist with seven healthy test slices, and five others."""
    return make_slice_cohort(tmp_path_factory.mktemp("wide"), training=0, calibration=0, healthy=7)


@pytest.fixture(scope="module")
def prepared():
    """The slices, prepared once."""
    return {}


@pytest.fixture
def wide(datalist, prepared):
    """Function that gives a setting on these slices."""

    def make(*models):
        configured = (read_profile(), list(models)) if models else None
        return Setting(
            ("template",), datalist=str(datalist), configured=configured, prepared=prepared
        )

    return make


class TestNeighbourDistances:
    def test_by_hand(self):
        """Points on a line; everyone's own slices do not count."""
        references = np.array([[0.0], [1.0], [3.0], [7.0]])
        people = ["a", "b", "c", "d"]
        found = neighbour_distances(references, people, references, people, neighbours=2)
        assert found.tolist() == [(1 + 3) / 2, (1 + 2) / 2, (2 + 3) / 2, (4 + 6) / 2]
        outside = neighbour_distances(np.array([[10.0]]), ["x"], references, people, neighbours=3)
        assert outside.tolist() == [(3 + 7 + 9) / 3]

    def test_all_slices_of_a_person_are_left_out_of_their_own_neighbours(self):
        references = np.array([[0.0], [0.1], [5.0]])
        found = neighbour_distances(
            references, ["a", "a", "b"], references, ["a", "a", "b"], neighbours=1
        )
        assert found.tolist() == pytest.approx([5.0, 4.9, 4.9])

    def test_distances_are_euclidean(self):
        assert neighbour_distances(
            np.array([[3.0, 4.0]]), ["x"], np.zeros((1, 2)), ["a"], 1
        ).tolist() == [5.0]

    def test_too_few_people(self):
        references = np.zeros((4, 2))
        for people in ("abcd", "aaab"):
            with pytest.raises(ConfigError, match="healthy slices of more people"):
                neighbour_distances(
                    references, list(people), references, list(people), neighbours=4
                )


def test_groups_are_encoded_and_reconstructions_are_clamped_first(wide, make_model):
    slices = wide().section("test")
    ill = slices[[i for i, name in enumerate(slices.pathology) if name != "healthy"]]
    groups = compare_latents(make_model(Coder()), slices.healthy(), ill)
    assert list(groups) == ["healthy", "pathological", "pseudo-healthy"]
    assert [len(group.latents) for group in groups.values()] == [7, 5, 5]
    torch.testing.assert_close(
        torch.from_numpy(groups["pathological"].latents[:, 0]), ill.images.mean(dim=(1, 2, 3))
    )
    assert (groups["pseudo-healthy"].latents[:, 0] == 1).all()
    healthy = groups["healthy"].latents
    expected = np.sort(1 - healthy[:, 0])[:5].mean()
    assert groups["pseudo-healthy"].distances == pytest.approx(np.full(5, expected))


def test_the_numbers_of_the_report(wide, make_model, value, no_umap):
    model, shifted = make_model(Coder(), "vae"), make_model(Coder(shift=3.0), "moved")
    setting = wide(model, shifted)
    slices = setting.section("test")
    ill = slices[[i for i, name in enumerate(slices.pathology) if name != "healthy"]]
    groups = compare_latents(model, slices.healthy(), ill)
    report = latent(setting)
    means = {name: float(group.distances.mean()) for name, group in groups.items()}
    for name, mean in means.items():
        assert value(report, "vae", f"{name} distance", "") == pytest.approx(mean)
        if name != "pseudo-healthy":  # clamped to white, which does not move along
            assert value(report, "moved", f"{name} distance", "") == pytest.approx(mean, rel=1e-4)
    for name in ("pathological", "pseudo-healthy"):
        assert value(report, "vae", f"{name} / healthy", "") == pytest.approx(
            means[name] / means["healthy"]
        )
    rows = {row.metric: row for row in report.rows if row.method == "vae"}
    assert (rows["healthy distance"].n, rows["healthy distance"].subjects) == (7, 7)
    assert (rows["pathological distance"].n, rows["pathological distance"].subjects) == (5, 5)
    assert rows["pathological / healthy"].subjects == 12
    assert rows["healthy distance"].low <= means["healthy"] <= rows["healthy distance"].high
    assert len(report.figures["umap"].subfigs) == 2


def test_marks_are_the_nearest_the_median_and_the_farthest(wide, make_model, no_umap):
    setting = wide(make_model(Coder(), "vae"))
    slices = setting.section("test")
    ill = slices[[i for i, name in enumerate(slices.pathology) if name != "healthy"]]
    distances = compare_latents(setting.models[0], slices.healthy(), ill)["pathological"].distances
    (panel,) = latent(setting).figures["umap"].subfigs
    axes = {axis.get_title(): axis for axis in panel.axes}
    assert set(axes) == {"vae", "1", "2", "3", "1'", "2'", "3'", "a", "b"}
    for mark, place in (
        ("1", distances.argmin()),
        ("2", np.argsort(distances)[2]),
        ("3", distances.argmax()),
    ):
        assert np.array_equal(axes[mark].images[0].get_array(), ill.images[place, 0].numpy())
    assert (axes["1'"].images[0].get_array() == 1).all()


def test_methods_without_latent_vector_are_refused(wide, identity, no_umap):
    with pytest.raises(
        ConfigError, match="identity has no latent vector; ra, si_vae and vae have one"
    ):
        latent(wide(identity))


def test_without_umap_it_says_what_to_install(wide, make_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"pip install pathology-screen\[plots\]"):
        latent(wide(make_model(Coder())))


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
