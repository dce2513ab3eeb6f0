"""What `evaluating` runs on one bundle."""

import json

import pytest

from pathology_screen.bundles import read_settings
from pathology_screen.errors import ConfigError
from pathology_screen.experiments import BundleEvaluation, Setting
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.models import ComparedMethod, read_profile
from pathology_screen.files import sha256
from pathology_screen.registry import METHODS


@pytest.fixture
def evaluate(predictor, datalist, tmp_path):
    """Function that runs the experiments on a bundle without training."""

    def run(datalist=datalist, **options):
        return BundleEvaluation(
            predictor, None, str(datalist), str(tmp_path / "out"), **options
        ).run()

    return run


def test_it_gives_the_numbers_of_the_experiment(evaluate, predictor, datalist, tmp_path):
    reports = {report.name: report for report in evaluate()}
    assert set(reports) == {"detection", "localization", "lesions"}
    method = ComparedMethod("ra", METHODS["ra"], predictor.network, {"residual": predictor.scoring})
    profile = read_profile()._replace(preprocessing=predictor.preprocessing)
    alone = Setting(("ra",), None, str(datalist), configured=(profile, [method]))
    expected, found = detection(alone).rows, reports["detection"].rows
    assert [row.value for row in found] == pytest.approx([row.value for row in expected], abs=1e-9)
    written = json.loads((tmp_path / "out/detection.json").read_text())["provenance"]
    assert written["profile"] == "configured" and written["slice"] == read_settings("ra")[
        "slice"
    ] | {"size": 64}
    assert written["methods"][0]["weights_sha256"] == sha256(predictor.weights)


def test_what_the_test_section_does_not_allow_is_left_out_and_said(
    evaluate, datalist, tmp_path, capsys
):
    content = json.loads(datalist.read_text())
    kept = [item for item in content["test"] if item["pathology"] == "healthy"]
    for item in kept + content["calibration"]:
        item["image"] = str(datalist.parent / item["image"])
    (tmp_path / "healthy.json").write_text(
        json.dumps({"calibration": content["calibration"], "test": kept})
    )
    assert evaluate(tmp_path / "healthy.json") == []
    assert "not run" in capsys.readouterr().out


def test_unknown_experiments_are_refused(evaluate):
    with pytest.raises(ConfigError, match="no experiment segmentation; it has detection"):
        evaluate(experiments=["segmentation"])
