"""What `evaluating` runs on one bundle."""

import json

import pytest

from pathology_screen.bundles import read_settings
from pathology_screen.errors import ConfigError
from pathology_screen.experiments import BundleEvaluation, ExperimentSetting
from pathology_screen.experiments.findings import detection
from pathology_screen.experiments.methods import ComparedMethod
from pathology_screen.files import sha256


@pytest.fixture
def evaluate(predictor, datalist, tmp_path):
    """Function that runs the experiments on a bundle without training."""

    def run(datalist=datalist, **options):
        out = str(tmp_path / "out")
        return BundleEvaluation(predictor, None, str(datalist), out, **options).run()

    return run


def test_it_gives_the_numbers_of_the_experiment(evaluate, predictor, datalist, profile, tmp_path):
    reports = {report.name: report for report in evaluate()}
    assert set(reports) == {"detection", "localization", "lesions"}
    method = ComparedMethod("ra", predictor, {"configured": predictor.scoring})
    profile = profile._replace(preprocessing=predictor.preprocessing)
    alone = ExperimentSetting(("ra",), None, str(datalist), configured=(profile, [method]))
    assert reports["detection"].rows == detection(alone).rows
    told = json.loads((tmp_path / "out/detection.json").read_text())["provenance"]
    assert told["profile"] == "configured"
    assert told["slice"] == read_settings("ra")["slice"] | {"size": 64}
    assert told["methods"][0]["weights_sha256"] == sha256(predictor.weights)


def test_what_is_not_allowed_is_left_out_and_what_is_not_there_refused(
    evaluate, datalist, tmp_path, capsys
):
    content = json.loads(datalist.read_text())
    kept = [item for item in content["test"] if item["pathology"] == "healthy"]
    for item in kept + content["calibration"]:
        item["image"] = str(datalist.parent / item["image"])
    sections = {"calibration": content["calibration"], "test": kept}
    (tmp_path / "healthy.json").write_text(json.dumps(sections))
    assert evaluate(tmp_path / "healthy.json") == []
    assert "not run" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no experiment segmentation; it has detection"):
        evaluate(experiments=["segmentation"])
