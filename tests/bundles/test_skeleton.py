"""Six bundles, one skeleton: their configurations are equal but for each method's own part."""

import json

import pytest
from monai.bundle import ConfigParser

from pathology_screen.bundles import bundle_root
from pathology_screen.registry import METHODS

BUNDLES = [method.name for method in METHODS.values() if not method.is_control]
BASELINES = [name for name in BUNDLES if name != "ra"]

OWN = {
    "train": """
        method max_epochs val_interval warm_up learning_rate loss_weights deviation scoring
        anomaly_map network_def train#prepare_batch#noise train#prepare_batch#corrupt train#inferer
        train#loss train#optimizers train#schedule train#handlers#1#warm_up
        train#handlers#1#identity#warm_up train#handlers#1#identity#loss_weights
        train#handlers#1#identity#deviation train#handlers#1#identity#noise
        train#handlers#1#identity#mse_weight train#handlers#1#identity#teacher train#trainer
        validate#key_metric validate#additional_metrics validate#evaluator#prepare_batch
    """,
    "inference": "method scoring anomaly_map network_def",
    "metadata": """
        changelog#0.1.0 name description authors references pred_classes
        required_packages_version#stlpips-pytorch network_data_format#outputs#pred#channel_def
    """,
}
"""What may differ, by configuration."""

PROFILE_KEYS = {
    "ship": "output_dir max_epochs warm_up val_interval",
    "paper": """
        output_dir max_epochs patience warm_up learning_rate loss_weights deviation
        calibration_section scoring averaging augmentation network_def#channels network_def#latent
        network_def#teacher network_def#norm network_def#mse_weight slice#background
        slice#median scoring#score
    """,
}


def config(name, file):
    return json.loads((bundle_root(name) / "configs" / f"{file}.json").read_text())


def without(value, own, path=""):
    """A configuration without what may differ."""
    if not isinstance(value, dict | list):
        return value
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    kept = {key: (inner, f"{path}#{key}".removeprefix("#")) for key, inner in pairs}
    return {key: without(inner, own, at) for key, (inner, at) in kept.items() if at not in own}


def expressions(value):
    """The expressions in a configuration."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [text for part in inner for text in expressions(part)]
    return [value] if isinstance(value, str) and value.startswith("$") else []


@pytest.mark.parametrize("file", ["train", "inference", "metadata"])
@pytest.mark.parametrize("name", BASELINES)
def test_configurations_are_equal_but_for_the_methods_own_part(name, file):
    own = OWN[file].split()
    assert without(config(name, file), own) == without(config("ra", file), own)


@pytest.mark.parametrize("file", ["brain_extracted", "evaluate", "multi_gpu_train"])
@pytest.mark.parametrize("name", BASELINES)
def test_overlays_of_no_method_are_the_same(name, file):
    assert config(name, file) == config("ra", file)


@pytest.mark.parametrize("file", ["ship", "paper"])
@pytest.mark.parametrize("name", BUNDLES)
def test_profiles_set_nothing_else(name, file):
    assert config(name, file).keys() <= {*PROFILE_KEYS[file].split()}


@pytest.mark.parametrize("name", BUNDLES)
def test_training_and_inference_agree(name):
    """On what a calibration and weights belong to."""
    train, inference = config(name, "train"), config(name, "inference")
    for key in ("method", "network_def", "slice", "preprocessing", "scoring", "anomaly_map"):
        assert train[key] == inference[key]
    assert train["method"] == name


def test_the_slice_is_that_of_the_paper():
    """In all six, whose training is equal by the tests above."""
    assert config("ra", "train")["slice"] == {
        **{"domain": "whole_head", "plane_mm": 23.0, "percentile": 98.0},
        **{"background": 0.12, "median": 0.79, "size": 128},
    }
    metadata = config("ra", "metadata")
    assert metadata["domain"] == "whole_head" and "z = +23 mm" in metadata["image_classes"]
    assert "98th percentile" in metadata["image_classes"]
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [128, 128]


@pytest.mark.parametrize("name", BUNDLES)
def test_registered_slices_are_augmented_less_than_those_of_the_paper(name):
    less = {"rotation_degrees": 0.5, "translation": 0.004, "scale": [0.99, 1.01]}
    papers = {"rotation_degrees": 10.0, "translation": 0.1, "scale": [0.9, 1.1], "flip": 0.5}
    own = config(name, "train")["augmentation"]
    assert own == less | {"flip": 0.5, "contrast": [0.9, 1.1]}
    assert config(name, "paper")["augmentation"] == papers


@pytest.mark.parametrize("file", ["train", "inference"])
@pytest.mark.parametrize("name", BUNDLES)
def test_no_module_is_imported_that_no_expression_names(name, file):
    """Classes are imported by their `_target_`."""
    loaded = config(name, file)
    imports, others = loaded.pop("imports"), [config("dae", file), config("mkd", file)]
    used = expressions([loaded, config(name, "evaluate"), *others])
    for line in imports:
        module = line.removeprefix("$import ")
        assert module == "pathology_screen" or any(f"{module}." in text for text in used), module


@pytest.mark.parametrize("name", BUNDLES)
def test_paper_profiles_stop_early_as_the_paper_says(name):
    parser = ConfigParser({**config(name, "train"), **config(name, "paper")})
    assert (parser["max_epochs"], parser["patience"], parser["batch_size"]) == (1500, 500, 8)


def test_si_vae_differs_from_ra_in_its_loss_alone():
    """And in the scoring of the paper's baselines."""
    for file in ("train", "paper"):
        ra, si_vae = config("ra", file), config("si_vae", file)
        differing = {key for key in ra.keys() | si_vae.keys() if ra.get(key) != si_vae.get(key)}
        assert differing <= {"method", "loss_weights", "scoring", "scoring#score"}
    weights = {"beta_rec": 1.0, "beta_kl": 1.0, "beta_neg": 256.0, "reversed_embedding": 0.0}
    assert config("si_vae", "paper")["loss_weights"] == weights
