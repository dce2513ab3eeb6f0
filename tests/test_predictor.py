"""A bundle's configuration is a file that anybody may have written: what is wrong in it is said."""

import json
import shutil
import time
from functools import reduce
from operator import getitem

import pytest
import torch

from pathology_screen.bundles import MOST_VALUES, bundle_root, read_settings
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.predictor import Predictor, best_device, build_network

REFERENCES = {f"r{number}": [f"@r{number + 1}"] * 10 for number in range(10)} | {"r10": 1}
"""Ten times ten times ... one value."""

WRONG = {
    "method: a list": {"method": ["ra"]},
    "method: unknown": {"method": "gan"},
    "scoring: a list": {"scoring": ["none"]},
    "scoring: an unknown key": {"scoring": {"perceptual": "none", "nonsense": 1}},
    "scoring: of another method": {"scoring": {"kind": "discrepancy"}},
    "scoring: a perceptual distance that is a list": {"scoring": {"perceptual": []}},
    "slice: a list": {"slice": [1]},
    "slice: null": {"slice": None},
    "network: a list": {"network_def": [1]},
    "network: no class": {"network_def": {"size": 128}},
    "network: a class that is a list": {"network_def#_target_": []},
    "network: absurd size": {"network_def#size": 10**9},
    "network: absurd channels": {"network_def#channels": [10**6] * 5},
    "network: endless channels": {"network_def#channels": [8] * (MOST_VALUES + 1)},
    "network: infinite": {"network_def#latent": float("inf")},
    "network: NaN": {"network_def#latent": float("nan")},
    "network: no number": {"network_def#latent": "many"},
    "network: zero": {"network_def#size": 0},
    "network: negative": {"network_def#latent": -1},
    "preprocessing: a list": {"preprocessing": [1]},
    "preprocessing: another class": {"preprocessing#_target_": "os.system"},
    "preprocessing: no steps": {"preprocessing": {"_target_": "Compose"}},
    "preprocessing: steps that are none": {"preprocessing#transforms": [1, 2]},
    "preprocessing: a step that is a list": {"preprocessing#transforms": [{"_target_": []}]},
    "preprocessing: an unknown key": {
        "preprocessing#transforms": [{"_target_": "Resized", "nonsense": 1}]
    },
    "preprocessing: absurd size": {"slice#size": 10**12},
    "references: tenfold, ten deep": REFERENCES | {"scoring": {"perceptual": "@r0"}},
    "references: in a circle": {"a": "@b", "b": "@a", "slice": "@a"},
    "references: to nothing": {"slice": "@nowhere#at#all"},
    "references: through a number": {"slice": "@rate#x"},
}


@pytest.fixture
def bundle(tmp_path):
    """Function that lays entries over the configuration of the shipped bundle, in a copy."""

    def make(entries):
        mine, left_out = tmp_path / "mine", shutil.ignore_patterns("runs", "train*", "docs")
        shutil.copytree(bundle_root("ra"), mine, ignore=left_out)
        (mine / "models").mkdir(exist_ok=True)
        path = mine / "configs/inference.json"
        config = json.loads(path.read_text())
        for key, value in entries.items():
            *outer, last = key.split("#")
            reduce(getitem, outer, config)[last] = value
        path.write_text(json.dumps(config))
        network = build_network("ra", read_settings("ra")["network_def"])
        torch.save(network.state_dict(), mine / "models/model.pt")
        return mine

    return make


@pytest.mark.parametrize("entries", WRONG.values(), ids=WRONG)
def test_a_wrong_configuration_is_refused_at_once(entries, bundle):
    start = time.process_time()
    with pytest.raises((ArtifactError, ConfigError)) as refusal:
        Predictor.load(bundle(entries))
    assert "\n" not in str(refusal.value) or "size mismatch" in str(refusal.value)
    assert time.process_time() - start < 10


def test_configurations_nested_too_deeply_are_refused(bundle):
    folder = bundle({})
    assert Predictor.load(folder).method == "ra"  # as it is
    (folder / "configs/inference.json").write_text('{"method":' * 100_000)
    with pytest.raises(ArtifactError, match="absent or damaged"):
        Predictor.load(folder)


def test_the_best_device_is_the_accelerator_where_there_is_one(monkeypatch):
    assert best_device("cpu") == "cpu"
    for found, best in ((torch.device("mps"), torch.device("mps")), (None, "cpu")):
        current = lambda check_available, found=found: found  # noqa: E731
        monkeypatch.setattr(torch.accelerator, "current_accelerator", current)
        assert best_device("auto") == best
    auto = Predictor.load("ra", device="auto").network
    assert {one.device.type for one in auto.parameters()} == {"cpu"}
