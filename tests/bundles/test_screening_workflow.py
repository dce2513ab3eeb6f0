"""Inference of RA's bundle: what is refused, what is judged, and that it repeats."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from workflows import make_workflow

from pathology_screen.errors import NOT_ASSESSABLE, ArtifactError


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    """Folder of untrained weights with their calibration."""
    output = tmp_path_factory.mktemp("run")
    options = {"datalist": str(cohort), "output_dir": str(output)}
    made = make_workflow("ra", "train", run_id="calibrating", **options)
    torch.save(made.parser.get_parsed_content("network").state_dict(), output / "model.pt")
    made.run()
    return output


def screen(trained, output, rate=0.5, **overrides):
    """The worklist of a run; two people calibrate, who allow a rate of 1 in 3."""
    options = {"ckpt": str(trained / "model.pt"), "output_dir": str(output), "rate": rate}
    make_workflow("ra", "inference", run_id="run", **options, **overrides).run()
    return pd.read_csv(output / "scores.csv")


def record(output, name):
    return json.loads((output / f"sub-{name}/sub-{name}_screening.json").read_text())


def test_a_short_run_with_few_people_to_calibrate_on_maps_and_judges_nothing(
    trained, cohort, tmp_path, capsys
):
    with pytest.raises(SystemExit) as end:
        screen(trained, tmp_path, rate=0.05, datalist=str(cohort))
    assert end.value.code == NOT_ASSESSABLE and "ask for a higher rate" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table.code.tolist() == ["not_calibrated"] * 2 and table.panel.notna().all()
    assert all(record(tmp_path, name)["slice"]["score"] > 0 for name in table.name)


def test_same_scan_same_score(trained, cohort, tmp_path):
    first, second = (screen(trained, tmp_path / run, datalist=str(cohort)) for run in "ab")
    assert first.equals(second) and first.score.is_monotonic_decreasing


def test_refused_scans_are_listed_not_scored_and_end_the_run_with_an_error(
    trained, cohort, tmp_path
):
    good = cohort.parent / json.loads(cohort.read_text())["test"][0]["image"]
    Image.fromarray(np.full((233, 197), 9, np.uint8)).save(tmp_path / "flat.png")
    broken = nib.Nifti1Image(np.full((8, 8, 8), np.nan, np.float32), np.eye(4))
    nib.save(broken, tmp_path / "broken.nii.gz")
    files = {"good": str(good), "flat": "flat.png", "broken": "broken.nii.gz"}
    items = [{"image": image, "subject": name, "name": name} for name, image in files.items()]
    (tmp_path / "datalist.json").write_text(json.dumps({"test": items}))
    with pytest.raises(SystemExit) as end:
        screen(trained, tmp_path / "out", datalist=str(tmp_path / "datalist.json"))
    assert end.value.code == NOT_ASSESSABLE
    table = pd.read_csv(tmp_path / "out/scores.csv").set_index("name")
    assert table.score.notna().to_dict() == {"good": True, "broken": False, "flat": False}
    assert table.code["broken"] == "not_finite" and isinstance(table.code["flat"], str)
    assert record(tmp_path / "out", "broken")["slice"] is None


def test_a_calibration_of_another_slice_is_refused(trained, cohort, tmp_path):
    with pytest.raises((ArtifactError, RuntimeError)) as error:
        screen(trained, tmp_path, datalist=str(cohort), **{"slice#percentile": 95.0})
    assert "slice.percentile (98.0 in the calibration, 95.0 here)" in str(error.getrepr(chain=True))


def test_the_paper_profile_screens_with_weights_of_its_own(cohort, tmp_path):
    """Narrow, and calibrated by their own workflow on the section that the profile names."""
    options = {"datalist": str(cohort), "output_dir": str(tmp_path)}
    options["scoring#perceptual"] = "st_alex"
    made = make_workflow("ra", "train", "paper", run_id="calibrating", **options)
    torch.save(made.parser.get_parsed_content("network").state_dict(), tmp_path / "model.pt")
    made.run()
    scores = json.loads((tmp_path / "calibration.json").read_text())["scores"]
    assert len(scores) == 1  # of validation
    options |= {"output_dir": str(tmp_path / "out"), "ckpt": str(tmp_path / "model.pt")}
    make_workflow("ra", "inference", "paper", run_id="run", rate=0.6, **options).run()
    table = pd.read_csv(tmp_path / "out/scores.csv")
    assert set(table.outcome) <= {"normal", "suspicious"} and len(table) == 2
    identity = record(tmp_path / "out", table.name[0])["provenance"]["identity"]
    assert identity["scoring"]["equalize"] is True
