"""The workflows of the five baselines' bundles, run in this process on a small phantom cohort with narrow networks."""

import json
import logging

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_net_in_out

from pathology_screen.bundles import bundle_root
from pathology_screen.calibration import Calibration
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.errors import ArtifactError
from pathology_screen.files import sha256
from pathology_screen.registry import METHODS

BASELINES = [name for name, method in METHODS.items() if name != "ra" and not method.is_control]
NARROW = {
    "si_vae": {"network_def#channels": [8, 8, 8, 8], "network_def#latent": 4, "warm_up": 1},
    "vae": {"network_def#channels": [8, 8, 8, 8], "network_def#latent": 4},
    "ae_s": {"network_def#channels": [8, 8, 8]},
    "dae": {"network_def#channels": [4, 8]},
    "mkd": {"network_def#width": 8},
}


def workflow(name, *files, run_id, **overrides):
    options = NARROW[name] | {"preprocessing_options#size": 64} | overrides
    if files[0] == "inference":
        options.pop("warm_up", None)
    made = ConfigWorkflow(
        config_file=[str(bundle_root(name) / "configs" / f"{file}.json") for file in files],
        meta_file=str(bundle_root(name) / "configs/metadata.json"),
        workflow_type="infer" if files[0] == "inference" else "train",
        run_id=run_id,
        **options,
    )
    made.initialize()
    return made


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    return make_phantom_cohort(root, training=2, validation=1, calibration=2, healthy=1, lesions=1, extracted=True)


@pytest.fixture(scope="module", params=BASELINES)
def trained(request, cohort, tmp_path_factory):
    """Name of a baseline, and the output folder of its training run of two epochs."""
    output = tmp_path_factory.mktemp(request.param)
    options = {"datalist": str(cohort), "output_dir": str(output), "max_epochs": 2, "batch_size": 2}
    run = workflow(request.param, "train", run_id="training", **options)
    assert run.check_properties() == []
    run.run()
    run.finalize()
    return request.param, output


def test_training_leaves_weights_calibration_log_and_pictures(trained):
    name, output = trained
    log = pd.read_csv(output / "log.csv")
    assert log.epoch.tolist() == [1, 2] and np.isfinite(log.loss).all()
    assert {"val_mean_map"} if name == "mkd" else {"val_mse", "val_perceptual_distance"} <= set(log.columns)
    assert Calibration.load(output / "calibration.json").n_subjects == 2
    assert list((output / "pictures").glob("*.png")) and list((output / "tensorboard").iterdir())
    assert (output / "model.pt").stat().st_size < 10e6


def screen(name, run, output, **overrides):
    """The worklist of a run; two people calibrate, who allow a rate of 1 in 3."""
    options = {"ckpt": str(run / "model.pt"), "output_dir": str(output), "rate": 0.5}
    workflow(name, "inference", run_id="run", **options, **overrides).run()
    return pd.read_csv(output / "worklist.csv").set_index("name")


def test_inference_writes_maps_and_for_reconstructions_those_too(trained, cohort, tmp_path):
    name, run = trained
    table = screen(name, run, tmp_path, datalist=str(cohort))
    assert set(table.outcome) <= {"normal", "suspicious"} and len(table) == 2 and (table.score > 0).all()
    for scan in table.index:
        stem = f"sub-{scan}/sub-{scan}"
        anomaly = nib.load(tmp_path / f"{stem}_desc-anomaly_map.nii.gz")
        assert np.asarray(anomaly.dataobj).any() and (tmp_path / f"{stem}_panel.png").stat().st_size > 1000
        assert (tmp_path / f"{stem}_desc-pseudohealthy_T1w.nii.gz").exists() == METHODS[name].reconstructs


def test_scoring_is_chosen_by_one_key_and_needs_a_calibration_of_its_own(trained, cohort, tmp_path):
    name, run = trained
    scoring = {"kind": "gradient", "sigma": 4.0} if name == "mkd" else {"perceptual": "none", "equalize": True}
    with pytest.raises((ArtifactError, RuntimeError)) as error:
        screen(name, run, tmp_path / "refused", datalist=str(cohort), scoring=scoring)
    assert "kind" in str(error.getrepr(chain=True)) or "equalize" in str(error.getrepr(chain=True))
    (tmp_path / "model.pt").write_bytes((run / "model.pt").read_bytes())
    options = {"datalist": str(cohort), "output_dir": str(tmp_path), "scoring": scoring}
    workflow(name, "train", run_id="calibrating", **options).run()
    chosen = screen(name, tmp_path, tmp_path / "chosen", datalist=str(cohort), scoring=scoring)
    default = screen(name, run, tmp_path / "default", datalist=str(cohort))
    same = np.allclose(chosen.score, default.score.loc[chosen.index])
    assert same == (name == "mkd")  # whose score is the discrepancy, whatever the map


def test_evaluating(trained, cohort, tmp_path):
    name, run = trained
    options = {"datalist": str(cohort), "ckpt": str(run / "model.pt"), "output_dir": str(tmp_path)}
    made = workflow(name, "train", "evaluate", run_id="evaluating", **options)
    made.run()
    metric = made.evaluator.state.metrics["mean_map" if name == "mkd" else "mse"]
    assert 0 < metric < 2 and list(tmp_path.glob("*_raw.csv"))
    for experiment in ("detection", "lesions"):
        report = json.loads((tmp_path / f"{experiment}.json").read_text())
        (method,) = report["provenance"]["methods"]
        assert method["weights_sha256"] == sha256(run / "model.pt") and report["results"]


def test_exported_network_gives_the_same_output(trained, tmp_path):
    name, run = trained
    configs = bundle_root(name) / "configs"
    options = {key: value for key, value in NARROW[name].items() if key.startswith("network_def")}
    options["preprocessing_options#size"] = 64
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(run / "model.pt"),
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        input_shape=[1, 1, 64, 64],
        **options,
    )
    parser = ConfigParser(ConfigParser.load_config_files([configs / "inference.json"]))
    for key, value in (options | {"ckpt": str(run / "model.pt"), "device": torch.device("cpu")}).items():
        parser.set(value, key)
    network = parser.get_parsed_content("network").eval()
    x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_network_keeps_the_format_that_metadata_states(name):
    configs = bundle_root(name) / "configs"
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )


@pytest.mark.parametrize("name", ["ra", *BASELINES])
def test_paper_profile_takes_a_training_step(name, cohort, tmp_path):
    """At its full width, but with perceptual backbone and teacher of an installed wheel."""
    options = {"datalist": str(cohort), "output_dir": str(tmp_path), "batch_size": 1}
    options |= {"ra": {"scoring#perceptual": "st_alex"}, "mkd": {"network_def#teacher": "st_vgg16"}}.get(name, {})
    made = ConfigWorkflow(
        config_file=[str(bundle_root(name) / "configs" / f"{file}.json") for file in ("train", "paper")],
        meta_file=None,
        workflow_type="train",
        run_id="training",
        **options,
    )
    made.initialize()
    trainer = made.parser.get_parsed_content("train#trainer")
    prepare_batch = made.parser.get_parsed_content("train#prepare_batch")
    prepare_batch.iteration = 1
    output = trainer._iteration(trainer, next(iter(trainer.data_loader)))
    rates = {"ra": 5e-5, "si_vae": 5e-5, "vae": 5e-4, "ae_s": 5e-4, "dae": 1e-4, "mkd": 1e-3}
    optimizers = made.parser.get_parsed_content("train#optimizers")
    assert {group["lr"] for optimizer in optimizers.values() for group in optimizer.param_groups} == {rates[name]}
    assert np.isfinite(float(output["loss"]))
