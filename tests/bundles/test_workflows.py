"""The workflows of the six bundles, with narrow networks on a little cohort of slices."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, verify_net_in_out
from workflows import NARROW, make_workflow

from pathology_screen.bundles import bundle_root
from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError
from pathology_screen.files import sha256
from pathology_screen.io import read_scan
from pathology_screen.registry import METHODS

BUNDLES = list(NARROW)


@pytest.fixture(scope="module", params=BUNDLES)
def trained(request, cohort, tmp_path_factory):
    """Name of a bundle, and the output folder of its training run of two epochs."""
    output = tmp_path_factory.mktemp(request.param)
    options = {"datalist": str(cohort), "output_dir": str(output), "max_epochs": 2, "batch_size": 2}
    run = make_workflow(request.param, "train", run_id="training", **options)
    assert run.check_properties() == []
    with pytest.warns(UserWarning, match="2 healthy people to calibrate on"):
        run.run()
    run.finalize()
    return request.param, output


@pytest.fixture(scope="module")
def screen(trained, cohort, tmp_path_factory):
    """Function that screens the test section with the trained weights and gives the folder and the
    worklist; two people calibrate, who allow a rate of 1 in 3."""

    def run(ckpt=None, **overrides):
        name, weights = trained
        output = tmp_path_factory.mktemp("out")
        options = {"datalist": str(cohort), "output_dir": str(output), "rate": 0.5}
        options |= {"ckpt": str(ckpt or weights / "model.pt"), "names": "paths"} | overrides
        made = make_workflow(name, "inference", run_id="run", **options)
        assert made.check_properties() == []
        made.run()
        return output, pd.read_csv(output / "scores.csv").set_index("name")

    return run


@pytest.fixture(scope="module")
def screened(screen):
    return screen()


def test_training_leaves_weights_calibration_log_and_pictures(trained):
    name, output = trained
    log = pd.read_csv(output / "log.csv")
    assert log.epoch.tolist() == [0, 1, 2] and np.isfinite(log.loss[1:]).all()
    metrics = {"val_mean_map"} if name == "mkd" else {"val_mse", "val_perceptual_distance"}
    assert log[sorted(metrics)].notna().all(axis=None)
    assert Calibration.load(output / "calibration.json").n_subjects == 2
    assert list((output / "pictures").glob("*.png")) and list((output / "tensorboard").iterdir())
    assert (output / "model.pt").stat().st_size < 10e6


def test_inference_writes_maps_in_the_geometry_of_the_scan(trained, screened, cohort):
    name, _ = trained
    output, table = screened
    items = json.loads(cohort.read_text())["test"]
    assert set(table.outcome) <= {"normal", "suspicious"} and (table.score > 0).all()
    assert len(table) == len(items) and (output / "index.html").is_file()
    for item in items:
        (scan,) = (label for label in table.index if item["subject"].removeprefix("sub-") in label)
        image, stem = read_scan(cohort.parent / item["image"]), output / f"sub-{scan}/sub-{scan}"
        anomaly = nib.load(f"{stem}_desc-anomaly_map.nii.gz")
        assert anomaly.shape == image.voxels.shape and np.allclose(anomaly.affine, image.affine)
        assert np.asarray(anomaly.dataobj).any() and Path(f"{stem}_panel.png").stat().st_size > 1000
        assert Path(f"{stem}_desc-pseudohealthy_T1w.nii.gz").exists() == METHODS[name].reconstructs
        record = json.loads(Path(f"{stem}_screening.json").read_text())
        stated = record["score"], record["false_positive_rate"]
        assert stated == pytest.approx((table.score[scan], 0.5))
        assert [finding["code"] for finding in record["findings"]] == ["not_registered"]


def test_scoring_is_chosen_by_one_key_and_needs_a_calibration_of_its_own(
    trained, screen, screened, cohort, tmp_path
):
    name, run = trained
    scoring = {"perceptual": "none", "equalize": True}
    if name == "mkd":
        scoring = {"kind": "gradient", "sigma": 4.0}
    with pytest.raises((ArtifactError, RuntimeError)) as error:
        screen(scoring=scoring)
    assert "kind" in str(error.getrepr(chain=True)) or "equalize" in str(error.getrepr(chain=True))
    (tmp_path / "model.pt").write_bytes((run / "model.pt").read_bytes())
    options = {"datalist": str(cohort), "output_dir": str(tmp_path), "scoring": scoring}
    make_workflow(name, "train", run_id="calibrating", **options).run()
    _, chosen = screen(tmp_path / "model.pt", scoring=scoring)
    same = np.allclose(chosen.score, screened[1].score.loc[chosen.index])
    assert same == (name == "mkd")  # whose score is the discrepancy, whatever the map


def test_evaluating(trained, cohort, tmp_path):
    name, run = trained
    options = {"datalist": str(cohort), "ckpt": str(run / "model.pt"), "output_dir": str(tmp_path)}
    made = make_workflow(name, "train", "evaluate", run_id="evaluating", **options)
    made.run()
    metric = made.evaluator.state.metrics["mean_map" if name == "mkd" else "mse"]
    assert 0 < metric < 2 and list(tmp_path.glob("*_raw.csv"))
    report = json.loads((tmp_path / "detection.json").read_text())
    (method,) = report["provenance"]["methods"]
    assert method["weights_sha256"] == sha256(run / "model.pt") and report["results"]


def test_exported_network_gives_the_same_output(trained, tmp_path):
    name, run = trained
    configs = bundle_root(name) / "configs"
    options = {key: value for key, value in NARROW[name].items() if "#" in key}
    parser = ConfigParser(ConfigParser.load_config_files([configs / "inference.json"]))
    parser.update(options | {"ckpt": str(run / "model.pt"), "device": torch.device("cpu")})
    network = parser.get_parsed_content("network").eval()
    x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(run / "model.pt"),
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        input_shape=[1, 1, 64, 64],
        **options,
    )
    with torch.no_grad():
        exported = torch.jit.load(tmp_path / "model.ts")(x)
        torch.testing.assert_close(exported, network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BUNDLES)
def test_network_keeps_the_format_that_metadata_states(name):
    configs = bundle_root(name) / "configs"
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )


@pytest.mark.parametrize("name", BUNDLES)
def test_paper_profile_takes_a_training_step(name, cohort, tmp_path):
    """At its full width, but with perceptual backbone and teacher of an installed wheel."""
    options = {"datalist": str(cohort), "output_dir": str(tmp_path), "batch_size": 1}
    options |= {"scoring#perceptual": "st_alex"} if name == "ra" else {}
    options |= {"network_def#teacher": "st_vgg16"} if name == "mkd" else {}
    made = make_workflow(name, "train", "paper", run_id="training", narrow=False, **options)
    trainer = made.parser.get_parsed_content("train#trainer")
    trainer.state.iteration, trainer.state.epoch, trainer.state.epoch_length = 1, 1, 4
    made.parser.get_parsed_content("train#prepare_batch").iteration = 1
    output = trainer._iteration(trainer, next(iter(trainer.data_loader)))
    rates = {"ra": 5e-5, "si_vae": 5e-5, "vae": 5e-4, "ae_s": 5e-4, "dae": 1e-4, "mkd": 1e-3}
    optimizers = made.parser.get_parsed_content("train#optimizers").values()
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    assert {group["lr"] for group in groups} == {rates[name]}
    assert np.isfinite(float(output["loss"]))
