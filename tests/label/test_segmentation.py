"""What MONAI Label 0.8.5 requires of a bundle's files, without MONAI Label.

Its stock app `monaibundle` reads them as `monailabel/tasks/infer/bundle.py` and `basic_infer.py`
say, and so does `as_stock_app`.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from drawn_slices import save_discs
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from servers import make_tiny_bundle

from pathology_screen.bundles import bundle_root
from pathology_screen.errors import find_refusal
from pathology_screen.registry import METHODS
from pathology_screen.screening import Screener

BUNDLES = [method.name for method in METHODS.values() if not method.is_control]


def config_of(bundle):
    """The configuration, as the stock app reads it: this file alone, and `bundle_root` in place of
    its own."""
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "inference.json"))
    config.config.update({"bundle_root": str(bundle)})
    return config


def as_stock_app(bundle, study):
    """What a bundle makes of a study: the data from which the segmentation (`pred`) and JSON
    (`result`) are written."""
    config = config_of(bundle)

    def parsed(key):
        return config.get_parsed_content(key, instantiate=True)

    template = parsed("network_def")
    data = {"image": str(study), "image_path": str(study), "device": "cpu", "model": bundle.name}
    config.config.update({"device": "cpu"})
    for step in parsed("pre_transforms"):
        data = step(data)
    state = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
    template.load_state_dict(state.get("model", state), strict=True)
    with torch.no_grad():
        data["pred"] = parsed("inferer")(data["image"][None], template.eval())[0]
    for step in parsed("post_transforms"):
        data = step(data)
    return data


@pytest.mark.parametrize("name", BUNDLES)
def test_metadata_and_one_file_hold_all_that_is_asked_for(name):
    configs = bundle_root(name) / "configs"
    metadata = json.loads((configs / "metadata.json").read_text())
    formats = metadata["network_data_format"]
    keys = [next(iter(formats[side])) for side in ("inputs", "outputs")]
    assert keys == ["image", "pred"] and formats["inputs"]["image"]["spatial_shape"]
    assert metadata["description"] and metadata["version"]
    channels = formats["outputs"]["pred"]["channel_def"]
    assert channels and all(key.isdecimal() for key in channels)
    # or it would not be taken for a segmentation
    assert not any(kind in name for kind in ("deepedit", "deepgrow", "detection", "classification"))

    text = (configs / "inference.json").read_text()
    config = json.loads(text).keys()
    assert {"device", "bundle_root", "network_def", "inferer"} <= config
    assert {"preprocessing", "postprocessing"} <= config
    # or other code than that of segmentations would run
    assert not {"detector", "displayable_configs"} & config
    assert '"%' not in text  # references to other files start from the working directory
    assert "scripts" not in text  # a package of that name is unloaded between bundles


@pytest.mark.parametrize("name", BUNDLES)
def test_the_bundle_is_read_from_where_it_was_copied_to(name, tmp_path, monkeypatch):
    bundle = shutil.copytree(
        bundle_root(name), tmp_path / name, ignore=shutil.ignore_patterns("runs")
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = config_of(bundle)
    assert config.get_parsed_content("ckpt") == str(bundle / "models" / "model.pt")
    template = config.get_parsed_content("network_def", instantiate=True)
    if (bundle / "models" / "model.pt").exists():
        state = torch.load(bundle / "models" / "model.pt", weights_only=True)
        assert state.keys() == template.state_dict().keys()  # the stock app would go on


def check_same(data, result):
    """The segmentation and the record are those of a result."""
    pred = data["pred"]
    assert isinstance(pred, MetaTensor) and pred.dtype == torch.uint8
    np.testing.assert_array_equal(np.asarray(pred[0]), result.regions_volume > 0)
    np.testing.assert_array_equal(np.asarray(pred.affine), result.affine)
    assert pred.shape == (1, *data["image"].meta["spatial_shape"])  # or it would be resized to this
    assert (pred.max() == 1) == bool(result.regions)
    record = json.loads(json.dumps(data["result"]))
    told = record["outcome"], record["percentile"]
    assert told == (result.outcome, result.percentile)
    assert record["score"] == pytest.approx(result.score, rel=1e-6)
    assert len(record["regions"]) == len(result.regions) and "name" not in record


@pytest.mark.parametrize("name", ["ra", "dae", "mkd"])
def test_a_bundle_gives_what_the_screener_gives(name, studies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people = save_discs(tmp_path / "healthy", [f"sub-{person}" for person in range(3)])
    bundle = make_tiny_bundle(tmp_path / name, people, 0.4, steps=0, name=name)
    expected = Screener.from_bundle(bundle, rate=0.4)(studies / "lesion.png")
    check_same(as_stock_app(bundle, studies / "lesion.png"), expected)


def test_the_stock_app_does_not_get_round_the_reader(studies, tiny):
    with pytest.raises(Exception) as caught:  # MONAI may wrap it
        as_stock_app(tiny, studies / "broken.nii.gz")
    assert find_refusal(caught.value).code == "not_finite"
