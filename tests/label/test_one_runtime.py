"""One runtime: through whichever door a scan comes, its score is the same."""

import json
import os
import subprocess

import pandas as pd
import pytest
from servers import ACROSS, RATE, label_python
from workflows import make_workflow

from pathology_screen.cli import main
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.predictor import Predictor

LABEL_TASK = """
import json, sys
from pathlib import Path
from pathology_screen.label.app import AnomalyVolume
from pathology_screen.label.model import Model, Options

bundle, scan, app, rate = sys.argv[1:]
model = Model(bundle, Path(app), Options(rate=float(rate), device="cpu"))
volume, record = AnomalyVolume(model)({"image": scan})
Path(volume).unlink()
print(json.dumps(record["score"]))
"""


@pytest.fixture(scope="module", params=["slice", pytest.param("volume", marks=pytest.mark.slow)])
def scan(request, slices, tmp_path_factory):
    """A single slice, or a whole head that is registered."""
    if request.param == "slice":
        return slices[1]
    few = {"training": 0, "validation": 0, "calibration": 0, "healthy": 0, "lesions": 1}
    cohort = make_phantom_cohort(tmp_path_factory.mktemp("cohort"), **few)
    (item,) = json.loads(cohort.read_text())["test"]
    return cohort.parent / item["image"]


def test_predictor_command_and_bundle_give_the_same_score(scan, screener, tiny, tmp_path):
    result = screener(scan)
    assert result.outcome in ("normal", "suspicious")
    predictor = Predictor.load(tiny)
    prediction = predictor.predict(predictor.prepare({"image": str(scan)})["image"][None])
    assert prediction.scores.tolist() == [result.score]

    options = ["-o", str(tmp_path / "a"), "--bundle", str(tiny), "--rate", str(RATE)]
    assert main(["screen", str(scan), *options]) == 0
    told = pd.read_csv(tmp_path / "a/scores.csv").score
    assert told.tolist() == [pytest.approx(result.score, rel=1e-9)]

    data = {"dataset_dir": str(scan), "output_dir": str(tmp_path / "b"), "device": "cpu"}
    options = {"bundle_root": str(tiny), **data}
    make_workflow(tiny, "inference", run_id="run", narrow=False, **options).run()
    told = pd.read_csv(tmp_path / "b/scores.csv").score
    assert told.tolist() == [pytest.approx(result.score, rel=1e-6)]


@pytest.mark.label
def test_a_task_of_monai_label_gives_the_same_score(scan, screener, tiny, tmp_path):
    """In an environment of its own, with other versions of torch and numpy."""
    command = [label_python(), "-c", LABEL_TASK, tiny, scan, tmp_path / "app", RATE]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    tolerance = 1e-5 if scan.suffix == ".png" else ACROSS
    told = float(done.stdout.splitlines()[-1])
    assert told == pytest.approx(screener(scan).score, rel=tolerance)
