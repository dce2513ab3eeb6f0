"""Six bundles, one skeleton: their configurations are equal but for each method's own part."""

import json

import pytest
from monai.bundle import ConfigParser

from pathology_screen.bundles import bundle_root
from pathology_screen.registry import METHODS

BUNDLES = [method.name for method in METHODS.values() if not method.is_control]
BASELINES = [name for name in BUNDLES if name != "ra"]

OWN = {
    "train": {
        "method",
        "max_epochs",
        "warm_up",
        "learning_rate",
        "loss_weights",
        "deviation",
        "scoring",
        "inferer",
        "anomaly_map",
        "network_def",
        "augmentation",
        "train#prepare_batch#noise",
        "train#prepare_batch#corrupt",
        "train#inferer",
        "train#loss",
        "train#optimizers",
        "train#schedule",
        "train#handlers#1#warm_up",
        "train#handlers#1#identity#warm_up",
        "train#handlers#1#identity#loss_weights",
        "train#handlers#1#identity#deviation",
        "train#handlers#1#identity#noise",
        "train#handlers#1#identity#mse_weight",
        "train#handlers#1#identity#teacher",
        "train#trainer",
        "validate#key_metric",
        "validate#additional_metrics",
        "validate#evaluator#prepare_batch",
    },
    "inference": {
        "method",
        "scoring",
        "inferer",
        "anomaly_map",
        "network_def",
        "postprocessing#transforms#1",
        "postprocessing#transforms#2#keys",
    },
    "metadata": {
        "version",
        "changelog",
        "name",
        "description",
        "authors",
        "references",
        "data_source",
        "pred_classes",
        "required_packages_version#stlpips-pytorch",
        "network_data_format#outputs#pred#channel_def",
    },
}
"""What may differ, by configuration."""

PROFILE_KEYS = {
    "ship": {"output_dir", "max_epochs", "warm_up", "val_interval"},
    "paper": {
        *("output_dir", "max_epochs", "patience", "warm_up", "learning_rate", "loss_weights", "deviation"),
        *("levels", "level"),
        *("calibration_section", "preprocessing_options", "scoring", "inferer"),
        *("network_def#channels", "network_def#latent", "network_def#teacher", "network_def#norm"),
        "network_def#principal",
        "network_def#mse_weight",
        *("averaging", "augmentation"),
    },
}


def config(name, file):
    return json.loads((bundle_root(name) / "configs" / f"{file}.json").read_text())


def without(value, own, path=""):
    """A configuration without what may differ."""
    if isinstance(value, dict):
        paths = {key: f"{path}#{key}" if path else key for key in value}
        return {key: without(inner, own, paths[key]) for key, inner in value.items() if paths[key] not in own}
    if isinstance(value, list):
        return [without(inner, own, f"{path}#{i}") for i, inner in enumerate(value) if f"{path}#{i}" not in own]
    return value


@pytest.mark.parametrize("file", ["train", "inference", "metadata"])
@pytest.mark.parametrize("name", BASELINES)
def test_configurations_are_equal_but_for_the_methods_own_part(name, file):
    assert without(config(name, file), OWN[file]) == without(config("ra", file), OWN[file])


@pytest.mark.parametrize("file", ["evaluate", "multi_gpu_train"])
@pytest.mark.parametrize("name", BASELINES)
def test_overlays_of_no_method_are_the_same(name, file):
    assert config(name, file) == config("ra", file)


@pytest.mark.parametrize("file", ["ship", "paper"])
@pytest.mark.parametrize("name", BUNDLES)
def test_profiles_set_nothing_else(name, file):
    assert config(name, file).keys() <= PROFILE_KEYS[file]


@pytest.mark.parametrize("name", BUNDLES)
def test_training_and_inference_agree(name):
    """On what a calibration and weights belong to."""
    train, inference = config(name, "train"), config(name, "inference")
    for key in ("method", "network_def", "preprocessing_options", "scoring", "anomaly_map", "level"):
        assert train[key] == inference[key]
    assert train["method"] == name


@pytest.mark.parametrize("name", BUNDLES)
def test_paper_profiles_stop_early_as_the_paper_says(name):
    parser = ConfigParser({**config(name, "train"), **config(name, "paper")})
    assert (parser["max_epochs"], parser["patience"], parser["batch_size"]) == (1500, 500, 8)


def test_si_vae_differs_from_ra_in_its_loss_alone():
    """And in the scoring of the paper's baselines."""
    for file in ("train", "paper"):
        ra, si_vae = config("ra", file), config("si_vae", file)
        differing = {key for key in ra.keys() | si_vae.keys() if ra.get(key) != si_vae.get(key)}
        assert differing <= {"method", "loss_weights", "scoring"}
    weights = config("si_vae", "paper")["loss_weights"]
    assert weights == {"beta_rec": 1.0, "beta_kl": 1.0, "beta_neg": 256.0, "reversed_similarity": 0.0}


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("profile", ["compact", "paper"])
def test_registry_counts_the_parameters_of_each_profile(name, profile):
    files = ["train.json", "paper.json"] if profile == "paper" else ["train.json"]
    parser = ConfigParser(ConfigParser.load_config_files([bundle_root(name) / "configs" / file for file in files]))
    if name == "mkd":
        parser["network_def"]["teacher"] = "st_vgg16"  # torchvision's VGG-16 may be absent; it has no trained part
    network = parser.get_parsed_content("network_def")
    method = METHODS[name]
    assert f"{type(network).__module__}.{type(network).__name__}" == method.network
    assert sum(parameter.numel() for parameter in network.parameters()) == method.parameters[profile]
