"""The RA bundle's workflows, run in this process on a small phantom cohort with a narrow network."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, onnx_export, verify_net_in_out
from scan_builders import dicom_datasets, save

from pathology_screen.bundles import bundle_root
from pathology_screen.calibration import Calibration
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.errors import ArtifactError

CONFIGS = bundle_root("ra") / "configs"
NARROW = {"network_def#channels": [8, 8, 8, 8, 8], "network_def#latent": 4}


def workflow(*names, run_id, **overrides):
    """An initialized workflow of the bundle's configurations, with overrides as on the command line."""
    made = ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.json") for name in names],
        meta_file=str(CONFIGS / "metadata.json"),
        workflow_type="infer" if names[0] == "inference" else "train",
        run_id=run_id,
        **NARROW,
        **overrides,
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
    """Datalist of a cohort of a few subjects with three slices each."""
    root = tmp_path_factory.mktemp("cohort")
    return make_phantom_cohort(root, training=4, validation=1, calibration=2, healthy=1, lesions=1, extracted=True)


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    """Output folder of a training run of two epochs."""
    output = tmp_path_factory.mktemp("run")
    run = workflow(
        "train", run_id="training", datalist=str(cohort), output_dir=str(output), max_epochs=2, warm_up=1, batch_size=4
    )
    assert run.check_properties() == []
    run.run()
    run.finalize()
    return output


def screen(trained, output, rate=0.5, **overrides):
    """The worklist of a run; two people calibrate, who allow a rate of 1 in 3."""
    options = {"ckpt": str(trained / "model.pt"), "output_dir": str(output), "rate": rate}
    run = workflow("inference", run_id="run", **options, **overrides)
    assert run.check_properties() == []
    run.run()
    return pd.read_csv(output / "worklist.csv")


def record(output, name):
    return json.loads((output / f"sub-{name}/sub-{name}_screening.json").read_text())


def test_training_leaves_weights_calibration_log_and_pictures(trained):
    log = pd.read_csv(trained / "log.csv")
    assert log.epoch.tolist() == [1, 2]
    assert {"encoder_loss", "decoder_loss", "val_mse", "val_perceptual_distance"} <= set(log.columns)
    assert Calibration.load(trained / "calibration.json").n_subjects == 2
    assert list((trained / "pictures").glob("*.png")) and list((trained / "tensorboard").iterdir())


def test_inference_writes_maps_in_the_geometry_of_the_scan(trained, cohort, tmp_path):
    items = json.loads(cohort.read_text())["test"]
    table = screen(trained, tmp_path, datalist=str(cohort))
    assert set(table.outcome) <= {"normal", "suspicious"} and table.score.is_monotonic_decreasing
    assert len(table) == len(items) and (tmp_path / "index.html").is_file()
    for item in items:
        scan = nib.load(cohort.parent / item["image"])
        name = Path(item["image"]).name.removeprefix("sub-").split("_")[0] + "T1w"  # sub-P005_T1w.nii.gz
        folder = tmp_path / f"sub-{name}"
        for suffix in ("desc-anomaly_map", "desc-pseudohealthy_T1w"):
            result = nib.load(folder / f"sub-{name}_{suffix}.nii.gz")
            assert result.shape == scan.shape and np.allclose(result.affine, scan.affine)
        painted = np.asarray(result.dataobj)
        assert sum(painted.any(axis=tuple(a for a in range(3) if a != axis)).sum() == 1 for axis in range(3)) == 1
        written = record(tmp_path, name)
        assert written["score"] == pytest.approx(table.set_index("name").score[name])
        assert len(written["provenance"]["identity"]["weights_sha256"]) == 64
        assert written["provenance"]["healthy"]["subjects"] == 2 and written["false_positive_rate"] == 0.5
        assert (folder / f"sub-{name}_panel.png").stat().st_size > 1000


def test_a_short_run_with_few_people_to_calibrate_on_maps_and_judges_nothing(trained, cohort, tmp_path):
    with pytest.raises(SystemExit, match="(?s)2 of 2 scans were not assessable.*ask for a higher rate"):
        screen(trained, tmp_path, rate=0.05, datalist=str(cohort))
    table = pd.read_csv(tmp_path / "worklist.csv")
    assert table.code.tolist() == ["not_calibrated"] * 2 and table.panel.notna().all()
    assert all(record(tmp_path, name)["slices"][0]["score"] > 0 for name in table.name)


def test_same_scan_same_score(trained, cohort, tmp_path):
    first, second = (screen(trained, tmp_path / run, datalist=str(cohort)) for run in "ab")
    assert first.equals(second)


def test_refused_scans_are_listed_not_scored_and_end_the_run_with_an_error(trained, cohort, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    good = cohort.parent / json.loads(cohort.read_text())["test"][0]["image"]
    (scans / "good.nii.gz").write_bytes(good.read_bytes())
    image = nib.load(good)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    voxels[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), scans / "broken.nii.gz")
    with pytest.raises(SystemExit, match="1 of 2 scans were not assessable"):
        screen(trained, tmp_path / "out", dataset_dir=str(scans))
    table = pd.read_csv(tmp_path / "out/worklist.csv").set_index("name")
    assert table.code.dropna().to_dict() == {"broken": "not_finite"}
    assert table.score.notna().to_dict() == {"good": True, "broken": False}
    assert record(tmp_path / "out", "broken")["slices"] == []


def test_all_scans_refused(trained, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)), scans / "constant.nii.gz")
    with pytest.raises(SystemExit, match="1 of 1"):
        screen(trained, tmp_path / "out", dataset_dir=str(scans))


def test_a_dicom_folder_and_a_single_nifti_file(trained, cohort, tmp_path):
    scan = nib.as_closest_canonical(nib.load(cohort.parent / json.loads(cohort.read_text())["test"][0]["image"]))
    rows = np.asarray(scan.dataobj)[::-1, ::-1].T.astype("uint16")  # slices, rows to posterior, columns to left
    pixel = nib.affines.voxel_sizes(scan.affine)
    (tmp_path / "series").mkdir()
    save(dicom_datasets(rows, spacing=(pixel[2], pixel[1], pixel[0])), tmp_path / "series")
    nib.save(scan, tmp_path / "scan.nii.gz")
    scores = []
    for name in ("series", "scan.nii.gz"):
        table = screen(trained, tmp_path / f"out-{name}", dataset_dir=str(tmp_path / name))
        (result,) = (tmp_path / f"out-{name}").rglob("*_desc-anomaly_map.nii.gz")
        assert sorted(nib.load(result).shape) == sorted(scan.shape)
        scores.append(table.score[0])
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


def test_the_paper_profile_screens_with_weights_of_its_own(cohort, tmp_path):
    """Whole heads, padded and resized, at the middle level; narrow weights, calibrated by their own workflow."""
    heads = make_phantom_cohort(tmp_path, training=1, validation=1, calibration=1, healthy=1, lesions=0)
    options = {"datalist": str(heads), "output_dir": str(tmp_path / "run"), "scoring#perceptual": "st_alex"}
    configs = [str(CONFIGS / name) for name in ("train.json", "paper.json")]
    narrow = {"network_def#channels": [8, 8, 8, 8, 8], "network_def#latent": 4}
    made = ConfigWorkflow(configs, workflow_type="train", run_id="calibrating", meta_file=None, **narrow, **options)
    made.initialize()
    network = made.parser.get_parsed_content("network")
    (tmp_path / "run").mkdir()
    torch.save(network.state_dict(), tmp_path / "run/model.pt")
    made.run()
    configs[0] = str(CONFIGS / "inference.json")
    options |= {"output_dir": str(tmp_path / "out"), "ckpt": str(tmp_path / "run/model.pt"), "rate": 0.5}
    made = ConfigWorkflow(configs, workflow_type="infer", run_id="run", meta_file=None, **narrow, **options)
    made.initialize()
    made.run()
    (name,) = pd.read_csv(tmp_path / "out/worklist.csv").name
    assert record(tmp_path / "out", name)["outcome"] != "not_assessable"
    assert record(tmp_path / "out", name)["scored_level"] == 2


def test_a_calibration_of_other_settings_is_refused(trained, cohort, tmp_path):
    with pytest.raises((ArtifactError, RuntimeError)) as error:
        screen(trained, tmp_path, datalist=str(cohort), **{"preprocessing_options#millimetres": 200.0})
    assert "millimetres" in str(error.getrepr(chain=True))


def test_evaluating(trained, cohort, tmp_path):
    run = workflow(
        *("train", "evaluate"),
        run_id="evaluating",
        datalist=str(cohort),
        ckpt=str(trained / "model.pt"),
        output_dir=str(tmp_path),
    )
    run.run()
    assert 0 < run.evaluator.state.metrics["mse"] < 1
    assert list(tmp_path.glob("*.csv"))


def test_network_keeps_the_format_that_metadata_states():
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
        device="cpu",
    )


@pytest.mark.parametrize("kind", ["script", "onnx"])
def test_exported_network_gives_the_same_output(kind, tmp_path):
    from pathology_screen.networks.introspective_vae import IntrospectiveVAE

    torch.manual_seed(0)
    network = IntrospectiveVAE(channels=(8, 8, 8, 8, 8), latent=4, principal=True).eval()
    network.principal.fit(torch.rand(8, 1, 128, 128), noise_variance=0.1)
    torch.nn.init.normal_(network.decoder.predict.weight, std=0.01)  # starts at zero
    torch.save(network.state_dict(), tmp_path / "model.pt")
    options = {
        "net_id": "network_def",
        "ckpt_file": str(tmp_path / "model.pt"),
        "meta_file": str(CONFIGS / "metadata.json"),
        "config_file": str(CONFIGS / "inference.json"),
    } | {key: value for key, value in NARROW.items() if key.startswith("network_def")}
    x = torch.rand(1, 1, 128, 128)
    if kind == "script":
        ckpt_export(filepath=str(tmp_path / "model.ts"), **options)
        exported = torch.jit.load(tmp_path / "model.ts")(x)
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        onnx_export(filepath=str(tmp_path / "model.onnx"), **options)
        session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
        exported = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    with torch.no_grad():
        torch.testing.assert_close(exported, network(x), rtol=1e-4, atol=1e-4)


def test_the_exact_training_command_from_another_folder(cohort, tmp_path):
    overrides = ["--max_epochs", "1", "--warm_up", "0", "--batch_size", "4"]
    overrides += ["--network_def#channels", "[8,8,8,8,8]", "--network_def#latent", "8"]
    subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(CONFIGS / "train.json")]
        + ["--datalist", str(cohort), "--output_dir", str(tmp_path / "out"), *overrides],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "out/calibration.json").exists()


@pytest.mark.slow
def test_two_processes_train_the_bundle(cohort, tmp_path):
    configs = [str(CONFIGS / "train.json"), str(CONFIGS / "multi_gpu_train.json")]
    overrides = ["--max_epochs", "1", "--warm_up", "0", "--batch_size", "2"]
    overrides += ["--network_def#channels", "[8,8,8,8,8]", "--network_def#latent", "8"]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        + ["-m", "monai.bundle", "run", "training", "--config_file", str(configs)]
        + ["--datalist", str(cohort), "--output_dir", str(tmp_path / "out"), *overrides],
        check=True,
        capture_output=True,
    )
    assert pd.read_csv(tmp_path / "out/log.csv").epoch.tolist() == [1]
    assert Calibration.load(tmp_path / "out/calibration.json").n_subjects == 2
