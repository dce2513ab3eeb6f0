"""The commands of the model cards, from the root of a checkout and from elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from pathology_screen.bundles import bundle_root
from pathology_screen.calibration import Calibration

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIGS = bundle_root("ra") / "configs"
NARROW = ["--slice#size", "64", "--network_def#channels", "[8,8,8,8]", "--network_def#latent", "4"]

SHORT = ["--max_epochs", "1", "--warm_up", "0", "--batch_size", "2"]


def run(folder, *command, program=("-m", "monai.bundle")):
    env = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *program, *map(str, command)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]


def configs(folder, *names):
    """As on the command line of someone who stands in this folder."""
    paths = [os.path.relpath(CONFIGS / f"{name}.json", folder) for name in names]
    return paths[0] if len(paths) == 1 else str(paths)


def test_the_training_command_from_another_folder(cohort, tmp_path):
    data = ["--dataset_dir", cohort.parent, "--datalist", cohort, "--output_dir", tmp_path / "out"]
    given = ["--config_file", CONFIGS / "train.json", *data, *SHORT, *NARROW]
    run(tmp_path, "run", "training", *given)
    assert (tmp_path / "out/calibration.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.slow
@pytest.mark.parametrize("from_root", [True, False], ids=["root", "elsewhere"])
def test_every_command(from_root, cohort, tmp_path):
    folder, out = (CHECKOUT if from_root else tmp_path), tmp_path / "out"
    data = ["--dataset_dir", cohort.parent, "--datalist", cohort]
    ckpt, meta = ["--ckpt", out / "model.pt"], ["--meta_file", configs(folder, "metadata")]
    train, inference, evaluate = (
        ["--config_file", configs(folder, *files)]
        for files in (["train"], ["inference"], ["train", "evaluate"])
    )
    run(folder, "run", "training", *train, *data, "--output_dir", out, *SHORT, *NARROW)
    first = Calibration.load(out / "calibration.json").calibration_id
    run(folder, "run", "calibrating", *train, *data, "--output_dir", out, *NARROW)
    assert Calibration.load(out / "calibration.json").calibration_id == first
    evaluated = ["--output_dir", out / "eval"]
    run(folder, "run", "evaluating", *evaluate, *ckpt, *evaluated, *data, *NARROW)
    assert list((out / "eval").glob("*.csv"))
    screened = ["--output_dir", out / "screened", "--rate", "0.5"]
    run(folder, "run", *inference, *data, *ckpt, *screened, *NARROW)
    assert len(pd.read_csv(out / "screened/scores.csv")) == 2
    network = ["--net_id", "network_def", *meta, *inference]
    run(folder, "verify_net_in_out", *network, "--device", "cpu")
    exported = ["--filepath", out / "model.ts", "--ckpt_file", out / "model.pt"]
    run(folder, "ckpt_export", *exported, *network, "--input_shape", "[1,1,64,64]", *NARROW)
    assert torch.jit.load(out / "model.ts")(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)


@pytest.mark.slow
def test_two_processes_train_the_bundle(cohort, tmp_path):
    data = ["--datalist", cohort, "--output_dir", tmp_path / "out"]
    files = ["--config_file", configs(tmp_path, "train", "multi_gpu_train")]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    program = (*torchrun, "-m", "monai.bundle")
    run(tmp_path, "run", "training", *files, *data, *SHORT, *NARROW, program=program)
    assert pd.read_csv(tmp_path / "out/log.csv").epoch.tolist() == [0, 1]
    calibration = Calibration.load(tmp_path / "out/calibration.json")
    assert calibration.n_subjects == len(json.loads(cohort.read_text())["calibration"])
