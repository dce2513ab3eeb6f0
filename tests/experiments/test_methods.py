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
from pathology_screen.experiments import methods as module
from pathology_screen.experiments.methods import (
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
from pathology_screen.predictor import BATCH

pytestmark = pytest.mark.usefixtures("light_distance")


@pytest.fixture
def load(profile):
    """Function that gives the one method that a text names."""

    def one(text, training=None, scorings=tuple(SCORINGS)):
        (method,) = load_methods([Chosen.parse(text)], profile, training, scorings)
        return method

    return one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ra", ("ra", "ra", None)),
        ("vae=runs/a", ("vae", "vae", Path("runs/a"))),
        ("ra:no-reversal=runs/b=c:d", ("ra", "no-reversal", Path("runs/b=c:d"))),
        ("template:mean", ("template", "mean", None)),
        ("ae_s:=x", ("ae_s", "ae_s", Path("x"))),
        ("ae_s=", ("ae_s", "ae_s", None)),
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
    assert profile.slice_options == read_settings("ra")["slice"]
    assert profile.backbone == read_settings("ra")["scoring"]["perceptual"]
    assert profile.calibration_section == "calibration"
    paper = read_profile("paper")
    assert paper.backbone == "squeeze" and paper.calibration_section == "validation"
    assert read_profile("paper", "st_alex").backbone == "st_alex"
    with pytest.raises(ConfigError, match="compact"):
        read_profile("ship")


def test_predictions_are_those_of_the_runtime_in_batches(slices, make_method):
    class Centre(nn.Module):
        def forward(self, x):
            assert len(x) <= BATCH
            return x - x.mean(dim=(2, 3), keepdim=True)

    slices = slices[[*range(8), *range(8)]]
    method = make_method(Centre())
    output, maps, scores = method.predict(slices)["residual"]
    for i in (0, 7, 8, 15):
        torch.testing.assert_close(method.reconstruct(slices[[i]])[0], output[i])
    torch.testing.assert_close(maps, (output - slices.images).abs())
    torch.testing.assert_close(scores, maps.mean(dim=(1, 2, 3)))


def test_the_template_is_the_mean_of_the_training_slices(load, make_setting, slices):
    training = make_setting().slices_of("training")
    method = load("template", training)
    assert method.weights_sha256 is None and method.reconstructs
    for predicted in method.reconstruct(slices):
        torch.testing.assert_close(predicted, training.images.mean(dim=0))


def test_the_principal_components_are_those_of_the_training_slices(
    load, make_setting, slices, monkeypatch
):
    monkeypatch.setitem(CONTROLS, "principal_components", partial(PrincipalComponents, count=4))
    training = make_setting().slices_of("training")
    method = load("principal_components", training)
    known, unknown = (
        float((method.reconstruct(x) - x.images).square().mean()) for x in (training, slices)
    )
    assert known < 0.05 * unknown  # two slices and their mirror images are spanned by them


@pytest.mark.parametrize("name", ["template", "principal_components"])
def test_a_control_that_learns_needs_training_slices(load, name):
    with pytest.raises(ConfigError, match="training section"):
        load(name)


def test_intensity_is_the_equalised_image_whatever_is_asked_for(load, make_setting, slices):
    for training in (None, make_setting().slices_of("training")):
        method = load("intensity", training, ["residual"])
        assert not method.reconstructs
        ((name, prediction),) = method.predict(slices[[0, 5]]).items()
        assert name == "equalised"
        torch.testing.assert_close(prediction.maps, equalize(slices.images[[0, 5]]))


def test_scorings_are_the_terms_of_equation_5(load, slices):
    told = {name: one.identity for name, one in load("template", slices).scorings.items()}
    assert {name: (one["perceptual"], one["equalize"]) for name, one in told.items()} == {
        "residual": ("none", False),
        "equalised": ("none", True),
        "perceptual": ("difference", False),
        "eq5": ("difference", True),
    }
    assert list(load("template", slices, ["residual"]).scorings) == ["residual"]


@pytest.fixture
def run(tmp_path):
    """Function that saves weights of a bundle's network as a run."""

    def save(network):
        torch.save(network.state_dict(), tmp_path / "model.pt")
        return tmp_path

    return save


def test_a_run_has_its_own_weights(load, slices, run):
    network = SpatialAutoencoder().eval()
    folder = run(network)
    method = load(f"ae_s:mine={folder}")
    assert method.label == "mine" and method.weights_sha256 == sha256(folder / "model.pt")
    with torch.no_grad():
        expected = network(slices.images[:2])
    torch.testing.assert_close(method.reconstruct(slices[[0, 1]]), expected)


def test_mkd_is_scored_its_own_way(load, run):
    method = load(f"mkd={run(MultiresolutionDistillation('st_vgg16', norm='group'))}")
    (scoring,) = method.scorings.items()
    assert scoring[0] == "discrepancy" and isinstance(scoring[1], DistillationMap)


def test_missing_or_other_weights_are_refused(load, run, tmp_path, monkeypatch):
    ended = r"no weights of ra: is that the output_dir of a run that ended\?"
    with pytest.raises(ArtifactError, match=ended):
        load(f"ra={tmp_path / 'none'}")
    with pytest.raises(ArtifactError, match="does not fit VAE"):
        load(f"vae={run(SpatialAutoencoder())}")
    monkeypatch.setattr(module, "bundle_root", lambda name: tmp_path)
    with pytest.raises(ArtifactError, match=r"train it and name the run \(dae=RUN\)"):
        load("dae")


def test_a_run_of_another_preprocessing_is_refused(load, profile, run):
    folder = run(SpatialAutoencoder())
    rates = {"all_pixels": 0.05, "brain_pixels": 0.1}
    for plane, message in ((23.0, None), (40.0, "slice differ between the run and the profile")):
        options = {**profile.slice_options, "plane_mm": plane}
        identity = {"weights_sha256": sha256(folder / "model.pt"), "slice": options}
        Calibration(0.1, 0.05, rates, (0.1,), (0,), identity).save(folder / "calibration.json")
        if message is None:
            load(f"ae_s={folder}")
        else:
            with pytest.raises(ArtifactError, match=message):
                load(f"ae_s={folder}")
