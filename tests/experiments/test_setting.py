"""What an experiment is run on, and the slices that it looks at."""

import json

import pytest
import torch

from pathology_screen.errors import ConfigError
from pathology_screen.experiments import ExperimentSetting
from pathology_screen.files import sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scoring": ("eq5", "lpips")}, "no scoring lpips; there are residual"),
        ({"protocol": "mine"}, "paper, official_code, pixel_count"),
        ({"methods": ("gan",)}, "no method 'gan'"),
        ({"methods": ("ra:x=a", "vae:x=b")}, "'x' names two methods"),
        ({"methods": ["ra=a", "ra=a"]}, "method is named twice"),
        ({"scoring": ["residual", "residual"]}, "scoring is named twice"),
    ],
)
def test_nonsense_is_refused_before_any_work(options, message):
    with pytest.raises(ConfigError, match=message):
        ExperimentSetting(**{"methods": ("template",)} | options)


def test_runs_of_one_method_may_share_a_label():
    setting = ExperimentSetting(("ra=a", "ra=b", "ra:other=c"))
    assert [choice.label for choice in setting.choices] == ["ra", "ra", "other"]


def test_sections_are_prepared_once(make_setting):
    setting = make_setting()
    assert setting.slices is setting.slices_of("test") is make_setting().slices
    assert len(setting.slices_of("training")) == 2
    assert make_setting(section="calibration").slices is setting.slices_of("calibration")
    with pytest.raises(ConfigError, match="no section"):
        setting.slices_of("holdout")


def test_the_methods_are_those_asked_for(make_setting):
    setting = make_setting(methods=("template:mean", "intensity"), scoring=("residual",))
    mean, intensity = setting.compared
    assert (mean.label, intensity.label) == ("mean", "intensity")
    training = setting.slices_of("training").images
    torch.testing.assert_close(mean.reconstruct(setting.slices)[5], training.mean(dim=0))


def test_provenance_is_json_without_paths(datalist, make_setting, identity):
    told = make_setting(identity, seed=4).provenance()
    text = json.dumps(told, allow_nan=False)
    assert str(datalist.parent) not in text and str(datalist.parent.parent) not in text
    assert told["datalist"] == f"datalist.json, sha256 {sha256(datalist)}"
    assert told["seed"] == 4 and told["section"] == "test"
    slice_options = {
        **{"domain": "whole_head", "plane_mm": 23.0, "percentile": 98.0},
        **{"background": 0.12, "median": 0.79, "size": 128},
    }
    assert told["slice"] == slice_options
    residual = {"perceptual": "none", "equalize": False, "sigma": 2.0, "score": "mean"}
    scorings = {"residual": residual}
    assert told["methods"] == [
        {"label": "identity", "method": "ra", "weights_sha256": None, "scorings": scorings}
    ]
    for options in (
        {"seed": 1},
        {"percentiles_of": "tissue"},
        {"protocol": "paper"},
        {"section": "validation"},
    ):
        assert make_setting(identity, **options).provenance() != told | {"seed": 0}


# --- slices ---
