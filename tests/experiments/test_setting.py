"""What an experiment is run on."""

import json

import pytest
import torch

from pathology_screen.errors import ConfigError
from pathology_screen.experiments import Setting
from pathology_screen.files import sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scoring": ("eq5", "lpips")}, "no scoring lpips; there are residual"),
        ({"protocol": "mine"}, "paper, official_code, pixel_count"),
        ({"methods": ("gan",)}, "no method 'gan'"),
        ({"methods": ("ra:x=a", "vae:x=b")}, "'x' names two methods"),
    ],
)
def test_nonsense_is_refused_before_any_work(options, message):
    with pytest.raises(ConfigError, match=message):
        Setting(**{"methods": ("template",)} | options)


def test_what_is_named_twice_is_no_second_seed():
    for options in (
        {"methods": ["ra=a", "ra=a"]},
        {"methods": ["ra"], "scoring": ["residual", "residual"]},
    ):
        with pytest.raises(ConfigError, match="named twice"):
            Setting(**options)


def test_runs_of_one_method_may_share_a_label():
    setting = Setting(("ra=a", "ra=b", "ra:other=c"))
    assert [choice.label for choice in setting.choices] == ["ra", "ra", "other"]


def test_sections_are_prepared_once(datalist):
    setting = Setting(("template",), datalist=str(datalist))
    test = setting.section("test")
    assert setting.section("test") is test and len(setting.section("training")) == 2
    with pytest.raises(ConfigError, match="no section"):
        setting.section("holdout")


def test_the_methods_are_those_asked_for(make_setting):
    setting = make_setting(methods=("template:mean", "intensity"), scoring=("residual",))
    mean, intensity = setting.models
    assert (mean.label, intensity.label) == ("mean", "intensity")
    test, training = setting.section("test"), setting.section("training")
    torch.testing.assert_close(mean.predict(test)[5], training.images.mean(dim=0))


def test_a_method_that_knows_none_of_the_scorings_is_scored_its_own_way(make_setting, make_model):
    setting = make_setting(scoring=("residual", "eq5"))
    model = make_model(torch.nn.Identity(), residual=None, other=None)
    assert setting.scorings(model) == ["residual"]
    assert setting.scorings(make_model(torch.nn.Identity(), other=None)) == ["other"]


def test_provenance_is_json_without_paths(datalist, make_setting, make_model):
    setting = make_setting(make_model(torch.nn.Identity(), "a"), seed=4, scoring=("residual",))
    told = setting.provenance()
    text = json.dumps(told, allow_nan=False)
    assert str(datalist.parent) not in text and str(datalist.parent.parent) not in text
    assert told["datalist"] == f"datalist.json, sha256 {sha256(datalist)}"
    assert told["seed"] == 4
    assert told["slice"] == {
        "domain": "whole_head",
        "plane_mm": 23.0,
        "percentile": 98.0,
        "background": 0.12,
        "median": 0.79,
        "size": 128,
    }
    (method,) = told["methods"]
    assert method["label"] == "a" and method["method"] == "ra" and method["weights_sha256"] is None
    assert method["scorings"] == {
        "residual": {"perceptual": "none", "equalize": False, "sigma": 2.0, "score": "mean"}
    }


def test_what_changes_the_numbers_changes_the_provenance(make_setting, identity):
    base = make_setting(identity).provenance()
    for options in ({"seed": 1}, {"percentiles_of": "tissue"}, {"protocol": "paper"}):
        assert make_setting(identity, **options).provenance() != base
