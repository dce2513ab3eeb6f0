"""A folder that is watched: nothing is lost when either side dies."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest
from dicomweb_archive import running_archive
from orthanc import running_orthanc, what_is_missing
from pydicom import dcmread
from scan_builders import save, series_of

from pathology_screen import cli
from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.screening import watch as module


@pytest.fixture
def incoming(brain, tmp_path) -> Path:
    """Two studies that have settled: a brain, and what will be refused; and one that arrives."""
    folder = tmp_path / "incoming"
    for number, name in enumerate(("brain", "refused", "arriving")):
        attributes = {"ContrastBolusAgent": "gadolinium"} if name == "refused" else {}
        save(series_of(nib.load(brain), series_uid=f"2.25.{number}", **attributes), folder / name)
    an_hour_ago = time.time() - 3600
    for path in folder.rglob("*"):
        if "arriving" not in str(path):
            os.utime(path, (an_hour_ago, an_hour_ago))
    return folder


@pytest.fixture
def run(incoming, make_brain_screener, tmp_path, monkeypatch, capsys):
    """Function that looks once and gives the status, and what was printed and said."""
    monkeypatch.setattr(cli, "_screener", lambda options: make_brain_screener())

    def run(*arguments):
        command = ["watch", str(incoming), "-o", str(tmp_path / "out"), "--once", *arguments]
        return cli.main(command), *capsys.readouterr()

    return run


def test_what_has_settled_is_screened_once_and_sent_until_the_archive_has_it(
    run, tmp_path, monkeypatch
):
    with running_archive() as archive:
        archive.answers += [503, 404, 202]
        for answer in (503, 404, 202):  # out of order; not all were stored
            status, _, said = run("--dicomweb", archive.url)
            assert status == 1 and f"it answered {answer}" in said and "1 results were not" in said
        table = pd.read_csv(tmp_path / "out/scores.csv")
        assert len(table) == 2 and table.code.dropna().tolist() == ["contrast_agent"]
        assert archive.stored == []

        monkeypatch.setattr(module, "_screen", lambda *arguments: True)  # none is screened again
        assert run("--dicomweb", archive.url)[0] == 0
        (note,) = tmp_path.glob("out/sub-*/*_sent.json")
        note.write_bytes(note.read_bytes().replace(b"\n", b"\r\n"))  # as Windows ends a line
        assert run("--dicomweb", archive.url)[0] == 0
        (parts,) = archive.stored
    folder = next(tmp_path.glob("out/sub-*/*_dicom/parametric_map.dcm")).parent
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert files.keys() >= {"report.dcm", "overlay.dcm"} and sorted(parts) == sorted(files.values())
    status, _, said = run("--dicomweb", archive.url.replace("dicom-web", "other"))
    assert status == 1 and "not sent yet" in said  # for it has none of it, and is dead


def test_a_series_is_screened_when_all_of_it_is_there(run, incoming, tmp_path):
    assert run()[0] == 0 and len(pd.read_csv(tmp_path / "out/scores.csv")) == 2
    assert not list(tmp_path.glob("out/sub-*/*_dicom"))
    status, printed, _ = run("--settle", "0")
    assert status == 0 and printed.startswith("3 scans: ")
    assert run("--settle", "-1")[0] == run("--dicomweb", "file:///etc")[0] == 1


def test_it_goes_on_looking_until_it_is_ended(run, incoming, monkeypatch, tmp_path):
    calls, pauses = [], []
    monkeypatch.setattr(module, "_screen", lambda *arguments: calls.append(0) or True)

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            (incoming / "new.txt").write_text("it came")
        if len(pauses) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", pause)
    status = cli.main(["watch", str(incoming), "-o", str(tmp_path / "out")])
    assert status == cli.INTERRUPTED and len(calls) == 2  # at first, and when something came


@pytest.mark.slow
def test_a_real_orthanc_takes_the_results(tmp_path):
    if reason := what_is_missing():
        pytest.skip(reason)
    few = {"training": 0, "validation": 0, "calibration": 0, "healthy": 0, "lesions": 1}
    cohort = make_phantom_cohort(tmp_path / "cohort", **few)
    (item,) = json.loads(cohort.read_text())["test"]
    head = nib.as_closest_canonical(nib.load(cohort.parent / item["image"]))
    save(series_of(head), tmp_path / "in", "{}.dcm".format)
    command = [sys.executable, "-m", "pathology_screen.cli", "watch", tmp_path / "in", "--once"]
    command += ["-o", tmp_path / "out", "--settle", "0", "--dicomweb"]
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        url = "http://127.0.0.1:8042/dicom-web"
        done = subprocess.run(
            [*orthanc.inside, *command, url], capture_output=True, text=True, cwd=Path.cwd()
        )
        assert done.returncode == 0, done.stderr[-2000:]
        stored = [orthanc.json(f"/series/{series}") for series in orthanc.json("/series")]
        modalities = {series["MainDicomTags"]["Modality"] for series in stored}
        (study,) = orthanc.json("/studies")  # that of the scan
        uid = orthanc.json(f"/studies/{study}")["MainDicomTags"]["StudyInstanceUID"]
    assert modalities >= {"SR", "SEG"}
    assert uid == dcmread(next((tmp_path / "in").iterdir())).StudyInstanceUID
