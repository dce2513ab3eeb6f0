"""A BIDS dataset, screened as BIDS Apps are called."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pathology_screen import cli
from pathology_screen.errors import ConfigError
from pathology_screen.outputs.run_folder import locked
from pathology_screen.screening.bids import find_images

IMAGES = (
    *("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_run-2_T1w.nii.gz"),
    *("sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz", "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz"),
    *("sub-02/ses-b/anat/sub-02_ses-b_ce-gd_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz"),
    "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz",
)
ENDINGS = ("desc-anomaly_map.nii.gz", "desc-anomaly_dseg.json", "report.html", "screening.json")


@pytest.fixture
def dataset(brain, tmp_path) -> Path:
    """Two people, three sessions, four T1w images without contrast agent."""
    root, voxels = tmp_path / "dataset", gzip.decompress(brain.read_bytes())
    for number, image in enumerate(IMAGES):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(gzip.compress(voxels, 1, mtime=number))  # of its own hash
    description = {"Name": "two people", "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


def names(*arguments, **options) -> list[str]:
    return [item.name for item in find_images(*arguments, **options)[0]]


def test_images_are_found_by_their_entities(dataset):
    second = ["sub-02_ses-a", "sub-02_ses-b"]
    assert names(dataset) == ["sub-01", "sub-01_run-2", *second]
    (passed_over,) = find_images(dataset)[1]
    assert passed_over.name == "sub-02_ses-b_ce-gd_T1w.nii.gz"
    assert names(dataset, ["sub-02"]) == second and names(dataset, [], ["ses-b"]) == second[1:]
    for asked, said in (
        ((["03"],), "no T1w image of sub-03"),
        (([], ["c"]), "no T1w image of ses-c"),
        ((["01"], ["a"]), "no T1w image of sub-01, ses-a"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_images(dataset, *asked)


def test_a_dataset_is_validated_unless_that_is_skipped(dataset):
    stray = dataset / "sub-01/anat/sub-03_T1w.nii.gz"
    stray.write_bytes(b"")
    with pytest.raises(ConfigError, match="sub-03_T1w.nii.gz is no name of BIDS"):
        find_images(dataset)
    assert stray in find_images(dataset, validate=False)[1]
    stray.rename(dataset / "sub-01/anat/sub-01_T1w.nii")
    with pytest.raises(ConfigError, match="there as .nii and .nii.gz"):
        find_images(dataset)
    for text in ("", "[]", '{"Name": "x"}'):
        (dataset / "dataset_description.json").write_text(text)
        with pytest.raises(ConfigError, match="does not describe a raw BIDS dataset"):
            find_images(dataset)
    assert names(dataset, ["02"], validate=False) == ["sub-02_ses-a", "sub-02_ses-b"]


@pytest.fixture
def run(dataset, make_brain_screener, monkeypatch, capsys):
    """Function that runs `bids` and gives the status, and what it printed and said."""
    monkeypatch.setattr(cli, "_screener", lambda options: make_brain_screener())

    def run(out, *arguments):
        status = cli.main(["bids", str(dataset), str(out), *arguments])
        return status, *capsys.readouterr()

    return run


def test_participants_and_the_group_make_a_derivative(run, tmp_path):
    out = tmp_path / "out"
    status, printed, said = run(out, "participant", "--participant_label", "02")
    assert status == 0 and printed.startswith("2 scans: ")
    assert "passed over: sub-02_ses-b_ce-gd_T1w.nii.gz" in said
    assert run(out, "participant", "--participant-label", "01", "--no-report")[0] == 1
    with locked(out):  # another run may screen into the folder at once
        assert run(out, "participant", "--participant-label", "01")[0] == 0
    stems = [image.removesuffix("_T1w.nii.gz") for image in IMAGES[:4]]
    assert all((out / f"{stem}_{ending}").is_file() for stem in stems for ending in ENDINGS)
    table = pd.read_csv(out / "scores.csv")
    assert set(table.name) == {Path(stem).name for stem in stems}
    assert all((out / report).is_file() for report in table.report)

    for made in ("scores.csv", "index.html"):
        (out / made).unlink()
    assert run(out, "group")[:2] == (0, f"4 scans\nlook at: {out / 'index.html'}\n")
    pd.testing.assert_frame_equal(pd.read_csv(out / "scores.csv"), table)
    made_by = json.loads((out / "dataset_description.json").read_text())
    assert made_by["DatasetType"] == "derivative" and made_by["GeneratedBy"][0]["Version"]

    pytest.importorskip("bids_validator_deno", reason="pip install bids-validator-deno")
    validator = [sys.executable, "-c", "from bids_validator_deno import cli; cli()", "--json"]
    checked = subprocess.run([*validator, out], capture_output=True, text=True)
    issues = json.loads(checked.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_results_stay_out_of_the_dataset_and_other_results_alone(run, dataset, tmp_path):
    for folder in (dataset, tmp_path):
        status, _, said = run(folder, "participant")
        assert status == 1 and "the dataset lies in the folder of the results" in said
    out, one = tmp_path / "out", ["participant", "--session-id", "a"]
    status, _, said = run(out, "group")
    assert status == 1 and "run the level participant first" in said
    assert run(out, *one)[0] == 0
    record = out / IMAGES[2].replace("T1w.nii.gz", "screening.json")
    kept = record.read_bytes()
    (dataset / IMAGES[2]).write_bytes(b"another image")
    status, _, said = run(out, *one)
    assert status == 1 and "holds the result of another image named sub-02_ses-a" in said
    assert record.read_bytes() == kept
