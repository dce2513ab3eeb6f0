"""Many scans: listed, shared out, gone on with, and accounted for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scan_builders import dicom_datasets, save

from pathology_screen.archive import list_items, save_key, screen_archive
from pathology_screen.errors import ArtifactError, InputError
from pathology_screen.outputs.results import finished
from pathology_screen.screening import Screener

COMMAND = [sys.executable, "-m", "pathology_screen.cli", "screen"]


@pytest.fixture
def tree(phantoms, tmp_path) -> Path:
    """Four good scans, one that is damaged, and a mask in a folder of its own."""
    root = tmp_path / "studies"
    for number in range(4):
        (root / f"s{number}").mkdir(parents=True)
        (root / f"s{number}/T1w.nii.gz").write_bytes(phantoms[number % 2].read_bytes())
    (root / "s4").mkdir()
    (root / "s4/T1w.nii.gz").write_bytes(phantoms[0].read_bytes()[:2000])
    return root


def contents(folder):
    """Path -> bytes of everything below a folder; of records what does not depend on the clock."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
            if path.name.endswith("_screening.json"):
                record = json.loads(path.read_text())
                found[path.relative_to(folder).as_posix()] = {k: v for k, v in record.items() if k != "seconds"}
            elif path.name.endswith("_report.html"):  # shows the seconds
                found[path.relative_to(folder).as_posix()] = True
    return found


# --- listing ---


def test_names_are_pseudonyms_that_stay_the_same(tree):
    items = list_items(tree)
    assert len({item.name for item in items}) == 5 and all(item.name.isalnum() for item in items)
    assert [item.name for item in list_items(tree)] == [item.name for item in items]
    assert not any("s0" in item.name or "T1w" in item.name for item in items)


def test_names_from_paths_are_letters_and_digits(tree):
    assert [item.name for item in list_items(tree, names="paths")] == [f"s{number}T1w" for number in range(5)]


def test_every_series_of_a_folder_is_a_scan(tmp_path):
    volume = np.arange(8 * 6 * 5, dtype="uint16").reshape(8, 6, 5)
    for number in (1, 2):
        save(dicom_datasets(volume, series_uid=f"1.2.{number}"), tmp_path / "study" / str(number))
    for path in (tmp_path / "study/1").iterdir():  # both in one folder
        path.rename(tmp_path / "study/2" / f"first-{path.name}")
    items = list_items(tmp_path / "study")
    assert [item.series_uid for item in items] == ["1.2.1", "1.2.2"] and len({item.name for item in items}) == 2
    (one,) = list_items(tmp_path / "study", series_uid="1.2.2")
    assert one.series_uid == "1.2.2"


def test_the_key_tells_which_name_is_which_path(tree, tmp_path):
    save_key(list_items(tree), [tree / "readme.txt"], tmp_path / "key.csv")
    table = pd.read_csv(tmp_path / "key.csv").set_index("name")
    assert {Path(path).parent.name for path in table.path[:-1]} == {f"s{number}" for number in range(5)}
    assert table.path.iloc[-1].endswith("readme.txt") and pd.isna(table.index[-1])
    assert (tmp_path / "key.csv").stat().st_mode & 0o077 == 0


def test_nothing_to_screen(tmp_path):
    with pytest.raises(InputError, match="empty"):
        list_items(tmp_path)


# --- running ---


def test_every_scan_is_accounted_for_and_sorted(tree, make_screener, tmp_path):
    items = list_items(tree, names="paths")
    rows = screen_archive(make_screener(), items, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/worklist.csv")
    assert table.name.tolist() == [row["name"] for row in rows] and set(table.name) == {item.name for item in items}
    assert table.outcome.tolist()[-1] == "not_assessable" and table.name.tolist()[-1] == "s4T1w"
    assert table.code.tolist()[-1] == "unreadable" and table.score[:4].is_monotonic_decreasing
    for row in rows[:4]:
        assert (tmp_path / "out" / row["report"]).is_file() and (tmp_path / "out" / row["panel"]).is_file()
    description = json.loads((tmp_path / "out/dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert "s0T1w" in (tmp_path / "out/index.html").read_text()
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_run_goes_on_where_it_was_killed(tree, make_screener, tmp_path, monkeypatch):
    items, screener, calls = list_items(tree), make_screener(), []

    class Interrupted:
        judge = screener.judge

        def __call__(self, path, **options):
            calls.append(path)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return screener(path, **options)

    with pytest.raises(KeyboardInterrupt):
        screen_archive(Interrupted(), items, tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out/worklist.csv")) == 2
    screen_archive(Interrupted(), items, tmp_path / "out")
    assert len(calls) == 3 + 3  # the two that were done are not done again
    screen_archive(screener, items, tmp_path / "at-once")
    assert contents(tmp_path / "out") == contents(tmp_path / "at-once")


def test_a_scan_that_changed_and_other_settings_are_screened_again(tree, make_screener, tmp_path, phantoms):
    items, out = list_items(tree), tmp_path / "out"

    def runs():
        return {item.name: finished(out, item.name)["run"] for item in items}

    screen_archive(make_screener(), items, out)
    before = runs()
    (tree / "s0/T1w.nii.gz").write_bytes(phantoms[1].read_bytes())
    screen_archive(make_screener(), items, out)
    changed = [name for name, run in runs().items() if run != before[name]]
    assert changed == [items[0].name]
    screen_archive(make_screener(rate=0.2), items, out)
    assert all(run != before[name] for name, run in runs().items())


def test_results_of_a_scan_that_is_refused_now_are_gone(tree, make_screener, tmp_path):
    items, out = list_items(tree, names="paths"), tmp_path / "out"
    screen_archive(make_screener(), items, out)
    assert (out / "sub-s0T1w/sub-s0T1w_desc-anomaly_map.nii.gz").is_file()
    (tree / "s0/T1w.nii.gz").write_bytes(b"damaged")
    screen_archive(make_screener(), items, out)
    left = {path.name for path in (out / "sub-s0T1w").iterdir()}
    assert left == {"sub-s0T1w_screening.json", "sub-s0T1w_report.html"}


def test_a_fault_of_the_software_is_one_scan_and_tells_no_values(tree, make_screener, tmp_path, monkeypatch):
    screener = make_screener()
    prepare, calls = screener.prepare, []

    def fails(*arguments):
        calls.append(0)
        if len(calls) == 2:
            raise ZeroDivisionError("CANARY")
        return prepare(*arguments)

    monkeypatch.setattr(screener, "prepare", fails)
    rows = screen_archive(screener, list_items(tree), tmp_path / "out")
    assert sorted(row["code"] for row in rows if row["code"]) == ["unexpected_error", "unreadable"]
    reason = next(row["reason"] for row in rows if row["code"] == "unexpected_error")
    assert "ZeroDivisionError in test_archive.py" in reason
    assert not any(b"CANARY" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_broken_weights_end_the_run(tree, make_screener, tmp_path):
    screener = make_screener()
    screener.network.share.data.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="weights are broken"):
        screen_archive(screener, list_items(tree), tmp_path / "out")


# --- by command ---


@pytest.fixture
def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_processes_do_what_one_does(tree, tmp_path, environment):
    one = subprocess.run([*COMMAND, tree, "-o", tmp_path / "one"], env=environment, capture_output=True, text=True)
    assert one.returncode == 3 and "5 scans" in one.stdout and "1 not assessable (unreadable 1)" in one.stdout
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", *COMMAND[2:]]
    two = subprocess.run([*torchrun, tree, "-o", tmp_path / "two"], env=environment, capture_output=True, text=True)
    assert "5 scans" in two.stdout, two.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_killed_and_started_again(tree, tmp_path, environment):
    out = tmp_path / "out"
    process = subprocess.Popen([*COMMAND, tree, "-o", out], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("sub-*/*_screening.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.stat().st_mtime_ns for path in out.glob("sub-*/*_screening.json")}
    assert subprocess.run([*COMMAND, tree, "-o", out], env=environment, capture_output=True).returncode == 3
    assert done <= {path.stat().st_mtime_ns for path in out.glob("sub-*/*_screening.json")}
    assert len(pd.read_csv(out / "worklist.csv")) == 5


def test_the_shipped_bundle_by_its_name(tree, tmp_path, capsys):
    """The command's own path, in this process."""
    from pathology_screen.cli import NOT_ASSESSABLE, main

    out, key = tmp_path / "out", tmp_path / "key.csv"
    (tree / "s4/notes.txt").write_text("no scan")
    assert main(["screen", str(tree), "-o", str(out), "--no-report", "--key", str(key)]) == NOT_ASSESSABLE
    assert "passed over: 1 files or links" in capsys.readouterr().out
    assert len(pd.read_csv(out / "worklist.csv")) == 5 and len(pd.read_csv(key)) == 6
    assert main(["screen", str(tree / "s0"), "-o", str(out)]) == 0
    assert main(["screen", str(tree / "nowhere"), "-o", str(out)]) == 1
    assert Screener.from_bundle("ra").judge.image_threshold > 0
