"""Many scans: listed, shared out, gone on with, and accounted for."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scan_builders import dicom_datasets, save

from pathology_screen.archive import check_processes, list_items, save_key, screen_archive
from pathology_screen.errors import ArtifactError, ConfigError, InputError, RunError
from pathology_screen.io import discover, read_scan
from pathology_screen.outputs.results import finished
from pathology_screen.outputs.run_folder import locked
from pathology_screen.screening import Screener
from pathology_screen.screening import screener as screener_module

COMMAND = [sys.executable, "-m", "pathology_screen.cli", "screen"]


screen_slices = partial(screen_archive, axial_slice=True)


@pytest.fixture(scope="session")
def phantoms(slices, tmp_path_factory) -> list[Path]:
    """A healthy slice and one with a lesion, as NIfTI files."""
    paths = []
    for path in slices:
        scan = read_scan(path)
        paths.append(tmp_path_factory.mktemp("phantoms") / f"{path.stem}.nii.gz")
        nib.save(nib.Nifti1Image(scan.voxels, scan.affine), paths[-1])
    return paths


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
                found[path.relative_to(folder).as_posix()] = {
                    k: v for k, v in record.items() if k != "seconds"
                }
            elif path.name.endswith("_report.html") or path.name == "run.json":  # show the seconds
                found[path.relative_to(folder).as_posix()] = True
    return found


# --- listing ---


def test_names_are_pseudonyms_that_stay_the_same(tree):
    items = list_items(tree)
    assert len({item.name for item in items}) == 5
    assert all(
        item.name.isalnum() and item.name[0] == "p" for item in items
    )  # no spreadsheet takes it for a number
    assert [item.name for item in list_items(tree)] == [item.name for item in items]
    assert not any("s0" in item.name or "T1w" in item.name for item in items)


def test_names_from_paths_are_letters_and_digits(tree):
    assert [item.name for item in list_items(tree, names="paths")] == [
        f"s{number}T1w" for number in range(5)
    ]


def test_every_series_of_a_folder_is_a_scan(tmp_path):
    volume = np.arange(8 * 6 * 5, dtype="uint16").reshape(8, 6, 5)
    for number in (1, 2):
        save(dicom_datasets(volume, series_uid=f"1.2.{number}"), tmp_path / "study" / str(number))
    for path in (tmp_path / "study/1").iterdir():  # both in one folder
        path.rename(tmp_path / "study/2" / f"first-{path.name}")
    items = list_items(tmp_path / "study")
    assert [item.series_uid for item in items] == ["1.2.1", "1.2.2"] and len(
        {item.name for item in items}
    ) == 2
    (one,) = list_items(tmp_path / "study", series_uid="1.2.2")
    assert one.series_uid == "1.2.2"


def test_the_key_tells_which_name_is_which_path(tree, tmp_path):
    save_key(list_items(tree), [tree / "readme.txt"], tmp_path / "key.csv")
    table = pd.read_csv(tmp_path / "key.csv").set_index("name")
    assert {Path(path).parent.name for path in table.path[:-1]} == {
        f"s{number}" for number in range(5)
    }
    assert table.path.iloc[-1].endswith("readme.txt") and pd.isna(table.index[-1])
    assert (tmp_path / "key.csv").stat().st_mode & 0o077 == 0


def test_nothing_to_screen(tmp_path):
    with pytest.raises(InputError, match="empty"):
        list_items(tmp_path)


# --- running ---


def test_every_scan_is_accounted_for_and_sorted(tree, make_screener, tmp_path):
    items = list_items(tree, names="paths")
    rows = screen_slices(make_screener(), items, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/worklist.csv")
    assert table.name.tolist() == [row["name"] for row in rows] and set(table.name) == {
        item.name for item in items
    }
    assert table.outcome.tolist()[-1] == "not_assessable" and table.name.tolist()[-1] == "s4T1w"
    assert table.code.tolist()[-1] == "unreadable" and table.score[:4].is_monotonic_decreasing
    for row in rows[:4]:
        assert (tmp_path / "out" / row["report"]).is_file() and (
            tmp_path / "out" / row["panel"]
        ).is_file()
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
        screen_slices(Interrupted(), items, tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out/worklist.csv")) == 2
    screen_slices(Interrupted(), items, tmp_path / "out")
    assert len(calls) == 3 + 3  # the two that were done are not done again
    screen_slices(screener, items, tmp_path / "at-once")
    assert contents(tmp_path / "out") == contents(tmp_path / "at-once")


def test_a_scan_that_changed_is_screened_again_and_other_settings_are_refused(
    tree, make_screener, tmp_path, phantoms
):
    items, out = list_items(tree), tmp_path / "out"

    def runs():
        return {item.name: finished(out, item.name)["run"] for item in items}

    screen_slices(make_screener(), items, out)
    before = runs()
    (tree / "s0/T1w.nii.gz").write_bytes(phantoms[1].read_bytes())
    screen_slices(make_screener(), items, out)
    changed = [name for name, run in runs().items() if run != before[name]]
    assert changed == [items[0].name]
    after = contents(out)
    with pytest.raises(RunError, match=r"other settings \(rate: 0.05 there, 0.2 here\)"):
        screen_slices(make_screener(rate=0.2), items, out)
    with pytest.raises(RunError, match="report: true there, false here"):
        screen_slices(make_screener(), items, out, report=False)
    assert contents(out) == after


def test_results_of_a_scan_that_is_refused_now_are_gone(tree, make_screener, tmp_path):
    items, out = list_items(tree, names="paths"), tmp_path / "out"
    screen_slices(make_screener(), items, out)
    assert (out / "sub-s0T1w/sub-s0T1w_desc-anomaly_map.nii.gz").is_file()
    (tree / "s0/T1w.nii.gz").write_bytes(b"damaged")
    screen_slices(make_screener(), items, out)
    left = {path.name for path in (out / "sub-s0T1w").iterdir()}
    assert left == {"sub-s0T1w_screening.json", "sub-s0T1w_report.html"}


def test_a_fault_of_the_software_is_one_scan_and_tells_no_values(
    tree, make_screener, tmp_path, monkeypatch
):
    screener = make_screener()
    prepare, calls = screener_module.prepare, []

    def fails(*arguments):
        calls.append(0)
        if len(calls) == 2:
            raise ZeroDivisionError("CANARY")
        return prepare(*arguments)

    monkeypatch.setattr(screener_module, "prepare", fails)
    rows = screen_slices(screener, list_items(tree), tmp_path / "out")
    assert sorted(row["code"] for row in rows if row["code"]) == ["unexpected_error", "unreadable"]
    reason = next(row["reason"] for row in rows if row["code"] == "unexpected_error")
    assert "ZeroDivisionError in test_archive.py" in reason
    assert not any(
        b"CANARY" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()
    )


def test_broken_weights_end_the_run(tree, make_screener, tmp_path):
    screener = make_screener()
    screener.predictor.network.share.data.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="weights are broken"):
        screen_slices(screener, list_items(tree), tmp_path / "out")


# --- accounting ---


def manifest(out):
    return json.loads((out / "run.json").read_text())


def test_the_manifest_tells_what_was_found_and_done(tree, make_screener, tmp_path):
    out, other = tmp_path / "out", tree / "s0/notes.txt"
    other.write_text("no scan")
    found = discover(tree)
    screen_slices(
        make_screener(), list_items(found), out, root=tree, others=found.passed_over, report=False
    )
    written = manifest(out)
    ((key, entry),) = written["inputs"].items()
    assert {name: entry[name] for name in ("found", "screened", "refused", "passed_over")} == {
        "found": 6,
        "screened": 4,
        "refused": 1,
        "passed_over": 1,
    }
    assert entry["seconds"] > 0 and set(entry["names"]) == set(
        pd.read_csv(out / "worklist.csv").name
    )
    assert written["settings"]["rate"] == 0.05 and written["settings"]["report"] is False
    assert written["versions"]["torch"] and str(tree) not in json.dumps(written)


def test_two_patients_whose_files_have_one_name_both_have_a_result(
    phantoms, make_screener, tmp_path
):
    out = tmp_path / "out"
    for names in ("pseudonyms", "paths"):
        for patient, phantom in zip(("p1", "p2"), phantoms):
            path = tmp_path / patient / "T1.nii.gz"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(phantom.read_bytes())
            screen_slices(
                make_screener(), list_items(path, names=names), out / names, root=path, report=False
            )
        table = pd.read_csv(out / names / "worklist.csv")
        assert len(table) == 2 and table.score.nunique() == 2
        records = [
            json.loads(path.read_text()) for path in (out / names).glob("sub-*/*_screening.json")
        ]
        assert {record["source_id"] for record in records} == {
            discover(tmp_path / patient).scans[0].source_id for patient in ("p1", "p2")
        }
    assert set(pd.read_csv(out / "paths/worklist.csv").name) == {
        "T1",
        f"T1x{discover(path).scans[0].source_id[:12]}",
    }


def test_results_that_vanish_during_the_run_are_missed(tree, make_screener, tmp_path):
    out, screener = tmp_path / "out", make_screener()

    class Deleting:
        judge, calls = screener.judge, 0

        def __call__(self, path, **options):
            self.calls += 1
            if self.calls == 3:
                shutil.rmtree(out)
            return screener(path, **options)

    items = list_items(tree)
    with pytest.raises(RunError, match="2 of 5 results are gone"):
        screen_slices(Deleting(), items, out, report=False)
    assert len(pd.read_csv(out / "worklist.csv")) == 3
    assert len(screen_slices(screener, items, out, report=False)) == 5
    assert len(pd.read_csv(out / "worklist.csv")) == 5


def test_a_manifest_that_cannot_be_read_is_no_reason_to_mix_results(tree, make_screener, tmp_path):
    for text in ("{", "[]", '{"settings": {}, "inputs": {"a": []}}', "[" * 100_000):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=r"run.json .* cannot be read"):
            screen_slices(make_screener(), list_items(tree), tmp_path)


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    code = "import sys, time; from pathlib import Path; from pathology_screen.outputs.run_folder import locked\n"
    code += "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="another run is writing"), locked(tmp_path):
            pass
        process.kill()
        process.wait()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_environment_of_torchrun_without_it_is_refused(tree, tmp_path, monkeypatch, capsys):
    """The process would wait for others that never come."""
    from pathology_screen.cli import main

    for size in ("2", "many"):
        monkeypatch.setenv("WORLD_SIZE", size)
        with pytest.raises(ConfigError, match="torchrun did not start this process"):
            check_processes()
        assert main(["screen", str(tree), "-o", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


# --- names that are no text, or more than text ---


def test_the_key_holds_any_name_and_no_formula(phantoms, tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    names = [b"\xff\xfe.nii.gz", b"\xfe" * 200 + b".nii.gz", b'a,"b\n.nii.gz']
    for name in names:
        (root / os.fsdecode(name)).write_bytes(phantoms[0].read_bytes() + name)
    with contextlib.chdir(root.parent):
        save_key(
            list_items("in"),
            [Path("=cmd()"), Path("-x"), Path("@y"), Path("plain")],
            tmp_path / "key.csv",
        )
    with (tmp_path / "key.csv").open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert {os.fsencode(row["path"]) for row in rows[:3]} == {b"in/" + name for name in names}
    assert [row["path"] for row in rows[3:]] == ["'=cmd()", "'-x", "'@y", "plain"]


# --- by command ---


def test_interrupted_by_ctrl_c(tree, make_screener, tmp_path, monkeypatch, capsys):
    from pathology_screen import cli

    screener, calls = make_screener(), []

    class Interrupted:
        judge = screener.judge

        def __call__(self, path, **options):
            calls.append(path)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return screener(path, **options)

    monkeypatch.setattr(cli, "_screener", lambda options: Interrupted())
    assert (
        cli.main(["screen", str(tree), "-o", str(tmp_path / "out"), "--axial-slice", "--no-report"])
        == 130
    )
    said = capsys.readouterr().err
    assert (
        said.splitlines()[-1] == "interrupted: what was finished is kept"
        and "Traceback" not in said
    )
    assert len(pd.read_csv(tmp_path / "out/worklist.csv")) == 2
    assert (
        cli.main(["screen", str(tree), "-o", str(tmp_path / "out"), "--axial-slice", "--no-report"])
        == cli.NOT_ASSESSABLE
    )
    assert len(pd.read_csv(tmp_path / "out/worklist.csv")) == 5 and len(calls) == 3 + 3


@pytest.fixture
def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_processes_do_what_one_does(tree, tmp_path, environment):
    one = subprocess.run(
        [*COMMAND, "--axial-slice", tree, "-o", tmp_path / "one"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (
        one.returncode == 3
        and "5 scans" in one.stdout
        and "1 not assessable (unreadable 1)" in one.stdout
    )
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "-m",
        *COMMAND[2:],
    ]
    two = subprocess.run(
        [*torchrun, "--axial-slice", tree, "-o", tmp_path / "two"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "5 scans" in two.stdout, two.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_killed_and_started_again(tree, tmp_path, environment):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "--axial-slice", tree, "-o", out], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("sub-*/*_screening.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.stat().st_mtime_ns for path in out.glob("sub-*/*_screening.json")}
    assert (
        subprocess.run(
            [*COMMAND, "--axial-slice", tree, "-o", out], env=environment, capture_output=True
        ).returncode
        == 3
    )
    assert done <= {path.stat().st_mtime_ns for path in out.glob("sub-*/*_screening.json")}
    assert len(pd.read_csv(out / "worklist.csv")) == 5


def test_the_shipped_bundle_by_its_name(tree, tmp_path, capsys):
    """The command's own path, in this process."""
    from pathology_screen.cli import NOT_ASSESSABLE, main

    out, key = tmp_path / "out", tmp_path / "key.csv"
    (tree / "s4/notes.txt").write_text("no scan")
    assert (
        main(
            ["screen", str(tree), "-o", str(out), "--axial-slice", "--no-report", "--key", str(key)]
        )
        == NOT_ASSESSABLE
    )
    assert "passed over: 1 files or links" in capsys.readouterr().out
    assert len(pd.read_csv(out / "worklist.csv")) == 5 and len(pd.read_csv(key)) == 6
    assert main(["screen", str(tree / "s0"), "-o", str(out), "--axial-slice", "--no-report"]) == 0
    assert main(["screen", str(tree / "s0"), "-o", str(out)]) == 1
    assert "report: false there, true here" in capsys.readouterr().err
    assert main(["screen", str(tree / "nowhere"), "-o", str(out)]) == 1
    assert Screener.from_bundle("ra").judge.image_threshold > 0
