"""The methods under comparison."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from pathology_screen.anomaly import DistillationMap, equalize
from pathology_screen.bundles import read_settings
from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments import models as module
from pathology_screen.experiments.models import (
    CONTROLS,
    SCORINGS,
    Chosen,
    load_methods,
    read_profile,
)
from pathology_screen.files import sha256
from pathology_screen.networks.controls import PrincipalComponents
from pathology_screen.networks.distillation import MultiresolutionDistillation
from pathology_screen.networks.spatial_ae import SpatialAutoencoder
from pathology_screen.networks.vae import VAE


@pytest.fixture(scope="module")
def profile():
    return read_profile()


@pytest.fixture(autouse=True)
def light_backbone(monkeypatch):
    """The mean of two images in place of the perceptual distance, which takes long to load."""

    class Mean(nn.Module):
        identity = "mean"

        def forward(self, a, b):
            return (a + b) / 2

    monkeypatch.setattr(module, "perceptual_distance", lambda name: Mean())


@pytest.fixture
def slices(make_setting):
    return make_setting().section("test")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ra", ("ra", "ra", None)),
        ("vae=runs/a", ("vae", "vae", Path("runs/a"))),
        ("ra:no-reversal=runs/b=c:d", ("ra", "no-reversal", Path("runs/b=c:d"))),
        ("template:mean", ("template", "mean", None)),
        ("ae_s:=x", ("ae_s", "ae_s", Path("x"))),
        ("ae_s=", ("ae_s", "ae_s", None)),
        ("principal_components:linear", ("principal_components", "linear", None)),
    ],
)
def test_a_choice_is_method_label_and_run(text, expected):
    choice = Chosen.parse(text)
    assert (choice.method.name, choice.label, choice.run) == expected


def test_unknown_methods_and_runs_of_controls_are_refused():
    with pytest.raises(ConfigError, match="no method 'gan'; the methods are ra, "):
        Chosen.parse("gan=run")
    for control in ("template:mean", "principal_components", "intensity"):
        with pytest.raises(ConfigError, match="has no run"):
            Chosen.parse(f"{control}=run")


def test_profiles_are_those_of_the_bundles(profile):
    assert dict(profile.slice_options) == {
        "domain": "whole_head",
        "plane_mm": 23.0,
        "percentile": 98.0,
        "background": 0.12,
        "median": 0.79,
        "size": 128,
    }
    assert profile.backbone == read_settings("ra")["scoring"]["perceptual"]
    assert profile.calibration_section == "calibration"
    paper = read_profile("paper")
    assert paper.backbone == "squeeze" and paper.calibration_section == "validation"
    assert read_profile("paper", "st_alex").backbone == "st_alex"
    with pytest.raises(ConfigError, match="compact"):
        read_profile("ship")


def test_batches_of_a_method_do_not_show(slices, make_model):
    class Centre(nn.Module):
        def forward(self, x):
            assert len(x) <= module.BATCH
            return x - x.mean(dim=(2, 3), keepdim=True)

    slices = slices[[*range(8), *range(8)]]
    model = make_model(Centre())
    whole = model.predict(slices)
    for i in (0, 7, 8, 15):
        torch.testing.assert_close(model.predict(slices[[i]])[0], whole[i])
    maps = model.maps(slices, whole, "residual")
    torch.testing.assert_close(maps, (whole - slices.images).abs())
    torch.testing.assert_close(model.scores(slices, maps, "residual"), maps.mean(dim=(1, 2, 3)))


def test_the_template_is_the_mean_of_the_training_slices(make_setting, profile, slices):
    training = make_setting().section("training")
    (model,) = load_methods([Chosen.parse("template")], profile, training)
    assert model.weights_sha256 is None and model.method.reconstructs
    for predicted in model.predict(slices):
        torch.testing.assert_close(predicted, training.images.mean(dim=0))


def test_the_principal_components_are_those_of_the_training_slices(
    make_setting, profile, slices, monkeypatch
):
    monkeypatch.setitem(CONTROLS, "principal_components", partial(PrincipalComponents, count=4))
    training = make_setting().section("training")
    (model,) = load_methods([Chosen.parse("principal_components")], profile, training)
    known, unknown = (
        float((model.predict(x) - x.images).square().mean()) for x in (training, slices)
    )
    assert known < 0.05 * unknown  # two slices and their mirror images are spanned by them


@pytest.mark.parametrize("name", ["template", "principal_components"])
def test_a_control_that_learns_needs_training_slices(profile, name):
    with pytest.raises(ConfigError, match="training section"):
        load_methods([Chosen.parse(name)], profile, None)


def test_intensity_is_the_equalised_image(profile, slices):
    (model,) = load_methods([Chosen.parse("intensity")], profile, None)
    assert list(model.scorings) == ["equalised"] and not model.method.reconstructs
    some = slices[[0, 5]]
    maps = model.maps(some, model.predict(some), "equalised")
    torch.testing.assert_close(maps, equalize(some.images))
    torch.testing.assert_close(model.scores(some, maps, "equalised"), maps.mean(dim=(1, 2, 3)))


def test_scorings_are_the_terms_of_equation_5(profile, slices):
    (model,) = load_methods([Chosen.parse("template")], profile, slices)
    assert set(model.scorings) == set(SCORINGS) == {"residual", "equalised", "perceptual", "eq5"}
    told = {
        name: (s.identity["perceptual"], s.identity["equalize"])
        for name, s in model.scorings.items()
    }
    expected = {
        "residual": ("none", False),
        "equalised": ("none", True),
        "perceptual": ("mean", False),
    }
    assert told == expected | {"eq5": ("mean", True)}
    some = slices[[1]]
    residual = model.maps(some, model.predict(some), "residual")
    assert torch.equal(residual, (model.predict(some) - some.images).abs())


@pytest.fixture
def run(tmp_path):
    """Function that saves weights of a bundle's network as a run."""

    def save(network):
        torch.save(network.state_dict(), tmp_path / "model.pt")
        return tmp_path

    return save


def test_a_run_has_its_own_weights(profile, slices, run):
    torch.manual_seed(0)
    network = SpatialAutoencoder().eval()
    folder = run(network)
    (model,) = load_methods([Chosen.parse(f"ae_s:mine={folder}")], profile, None)
    assert model.label == "mine" and model.weights_sha256 == sha256(folder / "model.pt")
    some = slices[[0, 1]]
    with torch.no_grad():
        torch.testing.assert_close(model.predict(some), network(some.images))
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    with pytest.raises(ConfigError, match="mine has no latent vector"):
        model.encode(some.images)


def test_the_latent_vectors_are_posterior_means(make_model, slices):
    network = VAE(channels=(4, 4, 4, 4, 4), latent=6).eval()
    images = slices.images
    with torch.no_grad():
        torch.testing.assert_close(make_model(network).encode(images), network.encode(images)[0])


def test_mkd_is_scored_its_own_way(profile, run):
    folder = run(MultiresolutionDistillation("st_vgg16", norm="group"))
    (model,) = load_methods([Chosen.parse(f"mkd={folder}")], profile, None)
    assert list(model.scorings) == ["discrepancy"] and isinstance(
        model.scorings["discrepancy"], DistillationMap
    )


def test_missing_or_other_weights_are_refused(profile, run, tmp_path):
    with pytest.raises(
        ArtifactError, match=r"no weights of ra: is that the output_dir of a run that ended\?"
    ):
        load_methods([Chosen.parse(f"ra={tmp_path / 'none'}")], profile, None)
    with pytest.raises(ArtifactError, match="does not fit VAE"):
        load_methods([Chosen.parse(f"vae={run(SpatialAutoencoder())}")], profile, None)


def test_a_run_of_another_preprocessing_is_refused(profile, run):
    folder = run(SpatialAutoencoder())
    rates = {"all_pixels": 0.05, "brain_pixels": 0.1}
    identity = {"weights_sha256": sha256(folder / "model.pt"), "slice": dict(profile.slice_options)}
    Calibration(0.1, 0.05, rates, (0.1,), (0,), identity).save(folder / "calibration.json")
    load_methods([Chosen.parse(f"ae_s={folder}")], profile, None)
    other = identity | {"slice": {**profile.slice_options, "plane_mm": 40.0}}
    Calibration(0.1, 0.05, rates, (0.1,), (0,), other).save(folder / "calibration.json")
    with pytest.raises(
        ArtifactError, match="slice differ between the run and the profile 'compact'"
    ):
        load_methods([Chosen.parse(f"ae_s={folder}")], profile, None)


def test_a_bundle_without_weights_says_what_to_do(profile, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "bundle_root", lambda name: tmp_path)
    with pytest.raises(ArtifactError, match=r"train it and name the run \(dae=RUN\)"):
        load_methods([Chosen.parse("dae")], profile, None)
