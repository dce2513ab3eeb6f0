"""What `evaluating` runs on one bundle."""

import json

import pytest
import torch
from torch import nn

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.errors import ConfigError
from pathology_screen.experiments import BundleEvaluation, Setting
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.models import Model, read_profile
from pathology_screen.files import sha256
from pathology_screen.registry import METHODS


class Dim(nn.Module):
    """Paints every slice darker."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return self.factor * x


@pytest.fixture
def evaluate(phantom, tmp_path):
    def run(datalist=phantom, **options):
        torch.save(Dim().state_dict(), tmp_path / "model.pt")
        profile = read_profile("compact")
        return BundleEvaluation(
            "vae",
            Dim(),
            str(tmp_path / "model.pt"),
            AnomalyMap("none", equalize=False),
            profile.preprocessing_options,
            profile.level,
            None,
            str(datalist),
            str(tmp_path / "out"),
            **options,
        )

    return run


def test_it_gives_the_numbers_of_the_experiment(evaluate, phantom, tmp_path):
    reports = {report.name: report for report in evaluate().run()}
    assert set(reports) == {"detection", "localization", "lesions"}
    model = Model(
        "vae", METHODS["vae"], {None: Dim()}, {"residual": AnomalyMap("none", False)}, sha256(tmp_path / "model.pt")
    )
    alone = Setting(("vae",), None, str(phantom), configured=(read_profile("compact"), [model]))
    expected, found = detection(alone).rows, reports["detection"].rows
    assert [row.value for row in found] == pytest.approx([row.value for row in expected], abs=1e-9)
    written = json.loads((tmp_path / "out/detection.json").read_text())
    assert written["provenance"]["profile"] == "configured"
    assert written["provenance"]["methods"][0]["weights_sha256"] == sha256(tmp_path / "model.pt")


def test_what_the_test_section_does_not_allow_is_left_out_and_said(evaluate, phantom, tmp_path, capsys):
    content = json.loads(phantom.read_text())
    for section, items in content.items():
        if isinstance(items, list):
            kept = [item for item in items if section != "test" or item["pathology"] == "healthy"]
            content[section] = [{**item, "image": str(phantom.parent / item["image"])} for item in kept]
            for item in content[section]:
                item.pop("label", None)
    (tmp_path / "healthy.json").write_text(json.dumps(content))
    assert evaluate(tmp_path / "healthy.json").run() == []
    assert "not run" in capsys.readouterr().out


def test_unknown_experiments_are_refused(evaluate):
    with pytest.raises(ConfigError, match="no experiment segmentation; it has detection"):
        evaluate(experiments=["segmentation"])
