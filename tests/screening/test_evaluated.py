"""What the bundles' inference leaves behind, which is what the command leaves behind."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from bad_scans import nifti, with_voxel
from batches import contents, item
from monai.data import DataLoader
from scan_builders import save, series_of

from pathology_screen.errors import NOT_ASSESSABLE, ConfigError, find_refusal
from pathology_screen.screening import evaluated as evaluated_module
from pathology_screen.screening.batch import Batch
from pathology_screen.screening.evaluated import EvaluatedBatch


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "scores.csv").set_index("name")


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / f"sub-{name}/sub-{name}_screening.json").read_text())


@pytest.fixture
def broken(tmp_path) -> Path:
    """A scan with a voxel that is no number."""
    return nifti(tmp_path / "broken.nii.gz", with_voxel(np.nan))


def test_the_bundles_and_the_command_write_the_same(
    brain, slices, broken, evaluate, make_brain_screener, tmp_path
):
    nib.save(nib.load(brain).as_reoriented([[0, -1], [2, 1], [1, 1]]), tmp_path / "turned.nii.gz")
    items = [
        item("dicom", save(series_of(nib.load(brain)), tmp_path / "series")),
        item("slice", slices[1]),
        item("other", tmp_path / "turned.nii.gz", plane_mm=30.0),
        item("broken", broken),
    ]
    out, screener = tmp_path / "out", make_brain_screener()
    assert evaluate(items) == NOT_ASSESSABLE == 3
    Batch(screener.judge, items, tmp_path / "expected").screen(screener)
    assert contents(out) == contents(tmp_path / "expected")
    codes = [record(out, one.name)["code"] for one in items]
    assert codes == [None, None, "not_calibrated", "not_finite"]
    seconds = record(out, "dicom")["seconds"]
    assert list(seconds) == ["reading", "preparation", "screening"] and min(seconds.values()) > 0
    done = contents(out)  # and the next run goes on with it
    assert evaluate(items) == 3 and contents(out) == done
    assert record(out, "dicom")["seconds"] == seconds


def test_refused_scans_and_faults_of_the_software_are_accounted_for_with_their_reasons(
    brain, slices, broken, evaluate, tmp_path, capsys, monkeypatch
):
    original = evaluated_module.prepare

    def prepare(predictor, scan, context, **options):
        if scan == slices[1]:
            raise ZeroDivisionError
        return original(predictor, scan, context, **options)

    monkeypatch.setattr(evaluated_module, "prepare", prepare)
    items, out = [item("a", broken), item("good", brain), item("b", slices[1])], tmp_path / "out"
    assert evaluate(items) == NOT_ASSESSABLE
    said = capsys.readouterr()
    counted = "1 suspicious, 0 normal, 2 not assessable (not_finite 1, unexpected_error 1)"
    assert said.out == f"3 scans: {counted}\nlook at: {out / 'index.html'}\n"
    assert "not assessable: a: [not_finite]" in said.err
    rows = table(out)
    assert rows.outcome.tolist() == ["suspicious", "not_assessable", "not_assessable"]
    assert rows.code.dropna().to_dict() == {"a": "not_finite", "b": "unexpected_error"}
    assert evaluate([item("a", broken)], tmp_path / "refused") == NOT_ASSESSABLE
    assert table(tmp_path / "refused").outcome.to_dict() == {"a": "not_assessable"}


def test_a_network_of_broken_weights_scores_nothing(brain, evaluate, tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x * float("nan")

    with pytest.raises(RuntimeError) as error:
        evaluate([item("scan", brain)], network=Broken())
    assert find_refusal(error.value) is None
    assert table(tmp_path / "out").empty and not list((tmp_path / "out").glob("*sub-*"))


def test_worker_processes_are_refused_for_they_would_lose_refusals(make_brain_screener, tmp_path):
    dataset = EvaluatedBatch(Batch(make_brain_screener().judge, [], tmp_path))
    with pytest.raises(ConfigError, match="num_workers"):
        list(DataLoader(dataset, batch_size=1, num_workers=1))
    with pytest.raises(ConfigError, match="`run`"):
        list(dataset)
