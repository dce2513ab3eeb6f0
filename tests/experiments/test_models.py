"""The methods under comparison."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pathology_screen.anomaly import DistillationMap, equalize
from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments import models as module
from pathology_screen.experiments.models import SCORINGS, Chosen, Model, load_models, read_profile
from pathology_screen.files import sha256
from pathology_screen.networks.distillation import MultiresolutionDistillation
from pathology_screen.networks.spatial_ae import SpatialAutoencoder
from pathology_screen.networks.vae import VAE
from pathology_screen.registry import METHODS


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
    return make_setting(every=1).section("test")


class Plus(nn.Module):
    """Adds a number."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        return x + self.number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ra", ("ra", "ra", None)),
        ("vae=runs/a", ("vae", "vae", Path("runs/a"))),
        ("ra:no-reversal=runs/b=c:d", ("ra", "no-reversal", Path("runs/b=c:d"))),
        ("template:mean", ("template", "mean", None)),
        ("ae_s:=x", ("ae_s", "ae_s", Path("x"))),
        ("ae_s=", ("ae_s", "ae_s", None)),
        ("principal_components:linear=ra", ("principal_components", "linear", Path("ra"))),
    ],
)
def test_a_choice_is_method_label_and_run(text, expected):
    choice = Chosen.parse(text)
    assert (choice.method.name, choice.label, choice.run) == expected


def test_unknown_methods_and_runs_of_controls_are_refused():
    with pytest.raises(ConfigError, match="no method 'gan'; the methods are ra, "):
        Chosen.parse("gan=run")
    with pytest.raises(ConfigError, match="'template' learns nothing"):
        Chosen.parse("template:mean=run")


def test_profiles_are_those_of_the_bundles(profile):
    assert profile.preprocessing_options["grid"] == "isotropic" and profile.level == 0.55
    assert profile.backbone == "st_alex" and profile.calibration_section == "calibration"
    paper = read_profile("paper")
    assert paper.preprocessing_options["grid"] == "padded" and paper.level == "middle"
    assert paper.preprocessing_options["domain"] == "whole_head" and paper.backbone == "squeeze"
    assert read_profile("paper", "st_alex").backbone == "st_alex"
    with pytest.raises(ConfigError, match="compact"):
        read_profile("ship")


def test_predictions_are_those_of_the_network_of_the_level(slices, make_model):
    one = make_model(Plus(0.5)).predict(slices)
    assert torch.equal(one, slices.images + 0.5)
    networks = {0: Plus(0.0), 1: Plus(1.0), None: Plus(2.0)}
    several = Model("made", METHODS["template"], networks, {}).predict(slices)
    added = torch.tensor([(0.0, 1.0, 2.0)[level] for level in slices.levels])
    assert torch.equal(several, slices.images + added[:, None, None, None])


def test_batches_of_a_method_do_not_show(slices, make_model):
    class Centre(nn.Module):
        def forward(self, x):
            assert len(x) <= module.BATCH
            return x - x.mean(dim=(2, 3), keepdim=True)

    model = make_model(Centre())
    whole = model.predict(slices)
    for i in (0, 7, 8, 23):
        torch.testing.assert_close(model.predict(slices[[i]])[0], whole[i])
    maps = model.maps(slices, whole, "residual")
    torch.testing.assert_close(maps, (whole - slices.images).abs())
    torch.testing.assert_close(model.scores(slices, maps, "residual"), maps.mean(dim=(1, 2, 3)))


def test_the_template_of_each_level_is_the_mean_of_its_training_slices(make_setting, profile, slices):
    training = make_setting(every=1).section("training")
    (model,) = load_models([Chosen.parse("template")], profile, training)
    assert model.weights_sha256 is None and model.method.reconstructs
    predicted = model.predict(slices)
    for level in (0, 1, 2):
        mean = training.images[[i for i, other in enumerate(training.levels) if other == level]].mean(dim=0)
        for i in [i for i, other in enumerate(slices.levels) if other == level]:
            torch.testing.assert_close(predicted[i], mean)
    assert not torch.allclose(predicted[0], predicted[1])


def test_a_template_knows_no_level_without_training_slices(make_setting, profile, slices):
    training = make_setting(every=1).section("training")
    lower = training[[i for i, level in enumerate(training.levels) if level < 2]]
    (model,) = load_models([Chosen.parse("template:mean")], profile, lower)
    with pytest.raises(ConfigError, match="mean: no training slice lies at level 2"):
        model.predict(slices)
    with pytest.raises(ConfigError, match="training section"):
        load_models([Chosen.parse("template")], profile, None)


def test_the_registered_template_follows_the_pose_of_a_slice(make_setting, profile, slices):
    training = make_setting(every=1).section("training")
    models = load_models([Chosen.parse(name) for name in ("template", "registered_template")], profile, training)
    shifted = replace(slices, images=slices.images.roll(8, dims=3))
    still, following = ((m.predict(shifted) - shifted.images).square().mean() for m in models)
    assert following < 0.5 * still


def test_the_control_of_principal_components_is_ras_linear_part(profile, slices):
    (model,) = load_models([Chosen.parse("principal_components")], profile, None)
    (ra,) = load_models([Chosen.parse("ra")], profile, None)
    assert model.weights_sha256 == ra.weights_sha256 and model.inferer.identity == ra.inferer.identity
    some = slices[[4]]
    linear = ra.networks[None].principal
    torch.testing.assert_close(model.predict(some), ra.inferer(some.images, linear))
    assert not torch.allclose(model.predict(some), ra.predict(some))


def test_intensity_is_the_equalised_image(profile, slices):
    (model,) = load_models([Chosen.parse("intensity")], profile, None)
    assert list(model.scorings) == ["equalised"] and not model.method.reconstructs
    some = slices[[0, 10]]
    maps = model.maps(some, model.predict(some), "equalised")
    torch.testing.assert_close(maps, equalize(some.images))
    torch.testing.assert_close(model.scores(some, maps, "equalised"), maps.mean(dim=(1, 2, 3)))


def test_scorings_are_the_terms_of_equation_5(profile, slices):
    (model,) = load_models([Chosen.parse("template")], profile, slices)
    assert set(model.scorings) == set(SCORINGS) == {"residual", "equalised", "perceptual", "eq5"}
    told = {name: (s.identity["perceptual"], s.identity["equalize"]) for name, s in model.scorings.items()}
    expected = {"residual": ("none", False), "equalised": ("none", True), "perceptual": ("mean", False)}
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
    (model,) = load_models([Chosen.parse(f"ae_s:mine={folder}")], profile, None)
    assert model.label == "mine" and model.weights_sha256 == sha256(folder / "model.pt")
    some = slices[[0, 1]]
    with torch.no_grad():
        torch.testing.assert_close(model.predict(some), model.inferer(some.images, network))
    assert not any(parameter.requires_grad for parameter in model.networks[None].parameters())
    with pytest.raises(ConfigError, match="mine has no latent vector"):
        model.encode(some.images)


def test_the_latent_vectors_are_posterior_means(make_model, slices):
    network = VAE(channels=(4, 4, 4, 4, 4), latent=6).eval()
    images = slices.images[:10]
    with torch.no_grad():
        torch.testing.assert_close(make_model(network).encode(images), network.encode(images)[0])


def test_mkd_is_scored_its_own_way(profile, run):
    folder = run(MultiresolutionDistillation("st_vgg16", norm="group"))
    (model,) = load_models([Chosen.parse(f"mkd={folder}")], profile, None)
    assert list(model.scorings) == ["discrepancy"] and isinstance(model.scorings["discrepancy"], DistillationMap)


def test_missing_or_other_weights_are_refused(profile, run, tmp_path):
    with pytest.raises(ArtifactError, match=r"no weights of ra: is that the output_dir of a run that ended\?"):
        load_models([Chosen.parse(f"ra={tmp_path / 'none'}")], profile, None)
    with pytest.raises(ArtifactError, match="does not fit VAE"):
        load_models([Chosen.parse(f"vae={run(SpatialAutoencoder())}")], profile, None)


def test_a_run_of_another_preprocessing_is_refused(profile, run):
    folder = run(SpatialAutoencoder())
    rates = {"all_pixels": 0.05, "brain_pixels": 0.1}
    identity = {"weights_sha256": sha256(folder / "model.pt"), "preprocessing": dict(profile.preprocessing_options)}
    Calibration(0.1, 0.05, rates, (0.1,), (0,), identity).save(folder / "calibration.json")
    load_models([Chosen.parse(f"ae_s={folder}")], profile, None)
    other = identity | {"preprocessing": {"grid": "padded"}}
    Calibration(0.1, 0.05, rates, (0.1,), (0,), other).save(folder / "calibration.json")
    with pytest.raises(ArtifactError, match="preprocessing differ between the run and the profile 'compact'"):
        load_models([Chosen.parse(f"ae_s={folder}")], profile, None)


def test_a_bundle_without_weights_says_what_to_do(profile, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "bundle_root", lambda name: tmp_path)
    with pytest.raises(ArtifactError, match=r"train it and name the run \(dae=RUN\)"):
        load_models([Chosen.parse("dae")], profile, None)
