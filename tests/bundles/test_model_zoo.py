"""What the CI of MONAI's model zoo asks of a bundle (its `verify_bundle.py` and CONTRIBUTING.md),
without network."""

import json

import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata

from pathology_screen.bundles import bundle_root, bundles_folder
from pathology_screen.registry import METHODS

BUNDLES = [method.name for method in METHODS.values() if not method.is_control]
SHIPPED = [name for name in BUNDLES if (bundles_folder() / name / "models" / "model.pt").is_file()]
LARGEST = 25e6
"""Most bytes of a file that the zoo takes without a link to it."""

HEADINGS = ("Description", "Model overview", "Intended use", "Data", "Results", "Limits")
HEADINGS += ("Commands", "Disclaimer", "References", "License")
"""Of a model card: the zoo's template asks for description, data, performance, limitations and
references."""

TEXT = {"type": "string"}
TENSOR = {
    "type": {"enum": ["image", "series", "tuples", "probabilities"]},
    "format": {"type": "string"},
    "modality": {"type": "string"},
    "num_channels": {"type": "integer", "minimum": 1},
    "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
    "dtype": {"enum": ["float16", "float32", "float64", "int32", "int64", "uint8"]},
    "value_range": {"type": "array", "items": {"type": "number"}},
    "is_patch_data": {"type": "boolean"},
    "channel_def": {"type": "object", "additionalProperties": TEXT, "minProperties": 1},
}
TEXTS = ("version", "monai_version", "pytorch_version", "numpy_version")
TEXTS += ("task", "description", "authors", "copyright")
MAPPING = {"type": "object", "additionalProperties": TEXT}
TENSORS = {"type": "object", "required": list(TENSOR), "properties": TENSOR}
TENSORS = {"type": "object", "additionalProperties": TENSORS, "minProperties": 1}
SCHEMA = {
    "type": "object",
    "required": [*TEXTS, "schema", "changelog", "required_packages_version", "network_data_format"],
    "properties": {
        **{name: {"type": "string", "minLength": 1} for name in TEXTS},
        "schema": {"type": "string", "pattern": "^https://.*/meta_schema_[0-9]+[.]json$"},
        "changelog": MAPPING,
        "required_packages_version": MAPPING,
        "references": {"type": "array", "items": TEXT},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "additionalProperties": TENSORS,
        },
    },
}
"""A reading of MONAI's bundle specification; the zoo's own schema is a download."""

every_bundle = pytest.mark.parametrize("name", BUNDLES)


def metadata(name):
    return json.loads((bundle_root(name) / "configs/metadata.json").read_text("utf-8"))


def verify(path, tmp_path):
    schema = tmp_path / "schema.json"  # MONAI downloads none where there is one
    schema.write_text(json.dumps(SCHEMA))
    verify_metadata(meta_file=str(path), filepath=schema)


@every_bundle
def test_metadata_keep_the_specification_and_tell_of_the_version(name, tmp_path):
    verify(bundle_root(name) / "configs/metadata.json", tmp_path)
    assert metadata(name)["changelog"][metadata(name)["version"]]


def test_metadata_that_break_the_specification_are_found(tmp_path):
    broken = metadata("ra") | {"network_data_format": {"inputs": {}}}
    (tmp_path / "metadata.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="outputs"):
        verify(tmp_path / "metadata.json", tmp_path)


@every_bundle
def test_required_files_are_there_and_none_is_large(name):
    root = bundle_root(name)
    required = ["LICENSE", "configs/metadata.json", "configs/logging.conf", "configs/train.json"]
    required += ["configs/inference.json", "docs/README.md"]
    if name in SHIPPED:
        required += ["docs/data_license.txt", "models/origin.json"]
    assert [file for file in required if not (root / file).is_file()] == []
    for part in ("configs", "docs", "models"):
        for path in (root / part).rglob("*"):
            assert path.is_dir() or path.stat().st_size <= LARGEST, path.name


@pytest.mark.parametrize("name", SHIPPED)
def test_the_licence_of_the_data_says_whose_they_are(name):
    text = (bundle_root(name) / "docs/data_license.txt").read_text("utf-8")
    assert "IXI" in metadata(name)["data_source"] and "phantom" in metadata(name)["data_source"]
    assert "brain-development.org" in text and "CC BY-SA 3.0" in text


@every_bundle
def test_the_model_card_has_the_headings_of_the_template(name):
    lines = (bundle_root(name) / "docs/README.md").read_text("utf-8").splitlines()
    assert [line[2:] for line in lines if line.startswith("# ")] == [*HEADINGS]


@pytest.mark.parametrize("name", SHIPPED)
def test_inference_with_the_shipped_weights_has_the_properties_that_monai_asks_for(
    name, cohort, tmp_path
):
    """Those of training are tested with it."""
    configs = bundle_root(name) / "configs"
    made = ConfigWorkflow(
        config_file=str(configs / "inference.json"),
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf"),
        workflow_type="infer",
        run_id="run",
        datalist=str(cohort),
        output_dir=str(tmp_path),
    )
    made.initialize()
    assert made.check_properties() == []


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_weights_become_torchscript(name, tmp_path):
    root = bundle_root(name)
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(root / "models/model.pt"),
        meta_file=str(root / "configs/metadata.json"),
        config_file=str(root / "configs/inference.json"),
        bundle_root=str(root),
    )
    stated = metadata(name)["network_data_format"]["outputs"]["pred"]
    output = torch.jit.load(tmp_path / "model.ts")(torch.zeros(1, 1, 128, 128))
    assert output.shape == (1, stated["num_channels"], *stated["spatial_shape"])
    assert output.isfinite().all()
