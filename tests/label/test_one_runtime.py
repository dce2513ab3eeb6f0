"""One runtime: through whichever door a scan comes, its score is the same (through MONAI Label:
see `test_app.py` and `test_dicomweb.py`)."""

import json

import pandas as pd
import pytest
from servers import RATE
from workflows import make_workflow

from pathology_screen.cli import main
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.predictor import Predictor


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
