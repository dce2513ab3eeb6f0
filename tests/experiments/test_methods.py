"""The methods under comparison, and what they are compared on."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from pathology_screen.anomaly import DistillationMap, equalize
from pathology_screen.bundles import read_settings
from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments import ExperimentSetting
from pathology_screen.experiments import methods as module
from pathology_screen.experiments.methods import CONTROLS, SCORINGS, Chosen
from pathology_screen.files import sha256
from pathology_screen.networks.controls import PrincipalComponents
from pathology_screen.networks.distillation import MultiresolutionDistillation
from pathology_screen.networks.spatial_ae import SpatialAutoencoder
from pathology_screen.predictor import BATCH

pytestmark = pytest.mark.usefixtures("light_distance")


@pytest.fixture
def load(make_setting):
    """Function that gives the one method that a text names."""

    def one(text, scoring=tuple(SCORINGS)):
        (method,) = make_setting(methods=(text,), scoring=scoring).compared
        return method

    return one


@pytest.fixture
def run(tmp_path):
    """Function that saves weights of a bundle's network as a run."""

    def save(network):
        torch.save(network.state_dict(), tmp_path / "model.pt")
        return tmp_path

    return save


def test_a_choice_is_method_label_and_run():
    for text, expected in {
        "ra": ("ra", "ra", None),
        "vae=runs/a": ("vae", "vae", Path("runs/a")),
        "ra:no-reversal=runs/b=c:d": ("ra", "no-reversal", Path("runs/b=c:d")),
        "template:mean": ("template", "mean", None),
        "ae_s:=x": ("ae_s", "ae_s", Path("x")),
        "ae_s=": ("ae_s", "ae_s", None),
    }.items():
        choice = Chosen.parse(text)
        assert (choice.method.name, choice.label, choice.run) == expected
    setting = ExperimentSetting(("ra=a", "ra=b", "ra:other=c"))
    assert [choice.label for choice in setting.choices] == ["ra", "ra", "other"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scoring": ("eq5", "lpips")}, "no scoring lpips; there are residual"),
        ({"protocol": "mine"}, "one of paper, official_code, pixel_count"),
        ({"methods": ("gan=run",)}, "no method 'gan'; the methods are ra, "),
        ({"methods": ("template:mean=run",)}, "has no run"),
        ({"methods": ("ra:x=a", "vae:x=b")}, "'x' names two methods"),
        ({"methods": ["ra=a", "ra=a"]}, "method is named twice"),
        ({"scoring": ["residual", "residual"]}, "scoring is named twice"),
    ],
)
def test_nonsense_is_refused_before_any_work(options, message):
    with pytest.raises(ConfigError, match=message):
        ExperimentSetting(**{"methods": ("template",)} | options)


def test_profiles_are_those_of_the_bundles(profile):
    settings, paper = read_settings("ra"), ExperimentSetting(("ra",), profile="paper")
    shared = settings["slice"], settings["scoring"]["perceptual"], "calibration"
    assert profile[1:4] == shared and paper.shared[2:4] == ("squeeze", "validation")
    assert replace(paper, backbone="st_alex").shared.backbone == "st_alex"
    with pytest.raises(ConfigError, match="compact"):
        _ = ExperimentSetting(("ra",), profile="ship").shared


def test_sections_are_prepared_once(make_setting):
    setting = make_setting()
    assert setting.slices is setting.slices_of("test") is make_setting().slices
    assert make_setting(section="calibration").slices is setting.slices_of("calibration")
    with pytest.raises(ConfigError, match="no section"):
        setting.slices_of("holdout")


def test_provenance_is_json_without_paths(datalist, make_setting, identity):
    told = make_setting(identity, seed=4).provenance()
    text = json.dumps(told, allow_nan=False)
    assert str(datalist.parent) not in text and str(datalist.parent.parent) not in text
    slice_options = {
        **{"domain": "whole_head", "plane_mm": 23.0, "percentile": 98.0},
        **{"background": 0.12, "median": 0.79, "size": 128},
    }
    residual = {"perceptual": "none", "equalize": False, "sigma": 2.0, "score": "mean"}
    method = {"label": "identity", "method": "ra", "weights_sha256": None}
    told.pop("versions")
    assert told == {
        "datalist": f"datalist.json, sha256 {sha256(datalist)}",
        **{"section": "test", "profile": "compact", "slice": slice_options, "seed": 4},
        **{"percentiles_of": "image", "protocol": "pixel_count"},
        "methods": [method | {"scorings": {"residual": residual}}],
    }


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


def test_controls_learn_from_the_training_slices(load, make_setting, slices, monkeypatch):
    monkeypatch.setitem(CONTROLS, "principal_components", partial(PrincipalComponents, count=4))
    training = make_setting().slices_of("training")
    mean, intensity = make_setting(methods=("template:mean", "intensity")).compared
    assert (mean.label, intensity.label) == ("mean", "intensity") and mean.predictor.reconstructs
    for predicted in mean.reconstruct(slices):
        torch.testing.assert_close(predicted, training.images.mean(dim=0))
    method = load("principal_components")
    known, unknown = (
        float((method.reconstruct(x) - x.images).square().mean()) for x in (training, slices)
    )
    assert known < 0.05 * unknown  # two slices and their mirror images are spanned by them


def test_intensity_is_the_equalised_image_whatever_is_asked_for(load, slices):
    method = load("intensity", ["residual"])
    assert not method.predictor.reconstructs
    ((name, prediction),) = method.predict(slices[[0, 5]]).items()
    assert name == "equalised"
    torch.testing.assert_close(prediction.maps, equalize(slices.images[[0, 5]]))


def test_scorings_are_the_terms_of_equation_5(load):
    told = {name: one.identity for name, one in load("template").scorings.items()}
    assert {name: (one["perceptual"], one["equalize"]) for name, one in told.items()} == {
        "residual": ("none", False),
        "equalised": ("none", True),
        "perceptual": ("difference", False),
        "eq5": ("difference", True),
    }
    assert list(load("template", ["residual"]).scorings) == ["residual"]


def test_a_run_has_its_own_weights_and_preprocessing(load, profile, slices, run):
    network = SpatialAutoencoder().eval()
    folder = run(network)
    method = load(f"ae_s:mine={folder}")
    assert method.label == "mine" and method.predictor.weights == folder / "model.pt"
    with torch.no_grad():
        expected = network(slices.images[:2])
    torch.testing.assert_close(method.reconstruct(slices[[0, 1]]), expected)
    rates = {"all_pixels": 0.05, "brain_pixels": 0.1}

    def calibrate(plane):
        options = {**profile.slice_options, "plane_mm": plane}
        identity = {"weights_sha256": sha256(folder / "model.pt"), "slice": options}
        Calibration(0.1, 0.05, rates, (0.1,), (0,), identity).save(folder / "calibration.json")

    calibrate(23.0)
    load(f"ae_s={folder}")
    calibrate(40.0)
    with pytest.raises(ArtifactError, match="slice differ between the run and the profile"):
        load(f"ae_s={folder}")


def test_mkd_is_scored_its_own_way(load, run):
    folder = run(MultiresolutionDistillation("st_vgg16", norm="group"))
    (scoring,) = load(f"mkd={folder}").scorings.items()
    assert scoring[0] == "discrepancy" and isinstance(scoring[1], DistillationMap)
    identity = {"weights_sha256": sha256(folder / "model.pt"), "scoring": {"teacher": "other"}}
    Calibration(0.1, 0.05, {}, (0.1,), (0,), identity).save(folder / "calibration.json")
    with pytest.raises(ArtifactError, match="slice, teacher, mse_weight differ"):
        load(f"mkd={folder}")


def test_missing_or_other_weights_are_refused(load, run, tmp_path, monkeypatch):
    ended = r"no weights of ra: is that the output_dir of a run that ended\?"
    with pytest.raises(ArtifactError, match=ended):
        load(f"ra={tmp_path / 'none'}")
    with pytest.raises(ArtifactError, match="does not fit VAE"):
        load(f"vae={run(SpatialAutoencoder())}")
    monkeypatch.setattr(module, "bundle_root", lambda name: tmp_path)
    with pytest.raises(ArtifactError, match=r"train it and name the run \(dae=RUN\)"):
        load("dae")
