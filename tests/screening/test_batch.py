"""Many scans: listed, shared out, gone on with, and accounted for."""

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import batches
import numpy as np
import pandas as pd
import pytest
from batches import contents
from scan_builders import dicom_datasets, save

from pathology_screen import cli
from pathology_screen.errors import ArtifactError, ConfigError, InputError, RunError
from pathology_screen.io import discover, read_scan, source_id
from pathology_screen.outputs import results
from pathology_screen.outputs.results import finished
from pathology_screen.screening import screener as screener_module
from pathology_screen.screening.batch import Batch, list_items, save_key

screen = partial(batches.screen, axial_slice=True)


def worklist(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "scores.csv")


class Interrupted:
    """A screener that does something on its third scan; it counts scans."""

    def __init__(self, screener, happens):
        self.screener, self.judge, self.happens, self.calls = screener, screener.judge, happens, 0

    def __call__(self, path, **options):
        self.calls += 1
        if self.calls == 3:
            self.happens()
        return self.screener(path, **options)


def test_names_are_pseudonyms_that_stay_the_same_or_paths(tree, tmp_path):
    names = [item.name for item in list_items(tree)]
    assert len(set(names)) == 5 and [item.name for item in list_items(tree)] == names
    assert all(name.isalnum() and name[0] == "p" for name in names)  # no number for a spreadsheet
    assert not any("s0" in name or "T1w" in name for name in names)
    named = [item.name for item in list_items(tree, names="paths")]
    assert named == [f"s{number}T1w" for number in range(5)]
    with pytest.raises(ConfigError, match="names are"):
        list_items(tree, names="dates")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="empty"):
        list_items(tmp_path / "folder")
    with pytest.raises(InputError, match="not_found"):
        list_items(tmp_path / "nowhere")


def test_every_series_of_a_folder_is_a_scan(tmp_path):
    volume = np.arange(8 * 6 * 5, dtype="uint16").reshape(8, 6, 5)
    for number in (1, 2):  # both in one folder
        datasets = dicom_datasets(volume, series_uid=f"1.2.{number}")
        save(datasets, tmp_path / "study", name=f"{number}-{{}}".format)
    items = list_items(tmp_path / "study")
    assert [item.series_uid for item in items] == ["1.2.1", "1.2.2"]
    assert len({item.name for item in items}) == 2
    assert list_items(tmp_path / "study", series_uid="1.2.2") == items[1:]
    (absent,) = list_items(tmp_path / "study", series_uid="1.2.9")
    with pytest.raises(InputError, match="series_not_found"):
        read_scan(absent.scan.source, series_uid=absent.series_uid)


def test_the_key_tells_which_name_is_which_path_and_holds_no_formula(phantoms, tmp_path):
    """Names may be any bytes, and longer than a file system takes for a name of results."""
    root, key = tmp_path / "in", tmp_path / "key.csv"
    root.mkdir()
    names = [b"\xff\xfe.nii.gz", b"\xfe" * 200 + b".nii.gz", b'a,"b\n.nii.gz']
    for name in names:
        (root / os.fsdecode(name)).write_bytes(phantoms[0].read_bytes() + name)
    others = [Path("=cmd()"), Path("-x"), Path("@y"), Path("plain")]
    with contextlib.chdir(tmp_path):
        items = list_items("in")
        save_key(items, others, key)
    with key.open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [*(item.name for item in items), *[""] * 4]
    assert {os.fsencode(row["path"]) for row in rows[:3]} == {b"in/" + name for name in names}
    assert [row["path"] for row in rows[3:]] == ["'=cmd()", "'-x", "'@y", "plain"]
    assert key.stat().st_mode & 0o077 == 0


@pytest.fixture
def listed(tmp_path):
    """Function that lists a datalist of test scans (name of the file, name of the item), whose
    files it writes."""

    def write(*entries, names="paths", **options):
        section = []
        for image, name in entries:
            section.append({"image": image, **options} | ({} if name is None else {"name": name}))
            (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / image).write_bytes(image.encode())
        (tmp_path / "datalist.json").write_text(json.dumps({"test": section}))
        return list_items(None, tmp_path / "datalist.json", names=names)

    return write


def test_names_of_a_datalist_are_its_own_or_letters_and_digits_of_paths(listed, tmp_path):
    for paths, labels in (
        ("images/sub-1_T1w.nii.gz images/sub-2.run-1.nii images/1.2.840.NII", "1T1w 2run1 12840"),
        ("site/sub-1/anat/T1w.nii.gz site/sub-3/T1w.nii.gz", "1anatT1w 3T1w"),
        ("a/1.nii.gz a_1.nii.gz", "a1 a12"),
    ):
        found = listed(*((path, None) for path in paths.split()))
        assert [item.name for item in found] == labels.split()
    own = (7, "case-8", "../outside", "/etc/passwd", ".hid", "a b", "a\\c", "é1", "d\n")
    found = listed(*((f"{number}.nii.gz", name) for number, name in enumerate(own)))
    names = [item.name for item in found]
    assert names == ["7", "case8", "outside", "etcpasswd", "hid", "ab", "ac", "1", "d"]
    plain, named = listed(("a.nii.gz", None), ("b.nii.gz", "x"), names="pseudonyms")
    assert plain.name == f"p{source_id(tmp_path / 'a.nii.gz')[:12]}" and named.name == "x"


def test_names_of_a_datalist_that_are_alike_or_without_letters_and_digits_are_refused(listed):
    for names in (("x", "x"), ("x", "X"), ("sub-1", "1"), ("b", None)):
        with pytest.raises(ConfigError, match='"name"'):
            listed(*zip(("a.nii", "b.nii"), names))
    for name in ("..", "é", "", "日"):
        with pytest.raises(ConfigError, match="no letter or digit"):
            listed(("a.nii.gz", name))


def test_of_an_item_what_reading_needs_stays_and_its_path_starts_from_the_root(listed, tmp_path):
    read = {"axial_slice": True, "axes": "RA"}
    (item,) = listed(("a.png", None), series_uid="1.2", age=9, **read)
    assert (item.series_uid, item.options) == ("1.2", read)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "elsewhere/a.png")
    (item,) = list_items(tmp_path / "elsewhere", tmp_path / "datalist.json")
    assert item.path == tmp_path / "elsewhere/a.png"
    with pytest.raises(InputError, match="empty"):
        listed()


def test_every_scan_is_accounted_for_and_sorted(tree, make_screener, tmp_path):
    out = tmp_path / "out"
    (tree / "s0/notes.txt").write_text("no scan")
    found = discover(tree)
    items = list_items(found, names="paths")
    rows, table = screen(make_screener(), items, out, found=found), worklist(out)
    assert table.name.tolist() == [row["name"] for row in rows]
    assert set(table.name) == {item.name for item in items}
    last = (table.name[4], table.outcome[4], table.code[4])
    assert last == ("s4T1w", "not_assessable", "unreadable")
    assert table.score[:4].is_monotonic_decreasing
    assert all((out / row[link]).is_file() for row in rows[:4] for link in ("report", "panel"))
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert "s0T1w" in (out / "index.html").read_text() and not list(out.rglob(".*"))

    written = json.loads((out / "run.json").read_text())
    (entry,) = written["inputs"].values()
    counts = {"found": 6, "screened": 4, "refused": 1, "passed_over": 1}
    assert counts.items() <= entry.items() and entry["seconds"] > 0
    assert set(entry["names"]) == set(table.name)
    assert written["settings"]["rate"] == 0.05 and written["settings"]["report"] is True
    assert written["versions"]["torch"] and str(tree) not in json.dumps(written)


def test_a_scan_that_changed_is_screened_again_and_other_settings_are_refused(
    tree, make_screener, tmp_path, phantoms
):
    items, out = list_items(tree, names="paths"), tmp_path / "out"

    def runs():
        screen(make_screener(), items, out)
        return {item.name: finished(out, item.name)["run"] for item in items}

    before = runs()
    assert (out / "sub-s1T1w/sub-s1T1w_desc-anomaly_map.nii.gz").is_file()
    (tree / "s0/T1w.nii.gz").write_bytes(phantoms[1].read_bytes())
    (tree / "s1/T1w.nii.gz").write_bytes(b"damaged")
    after = runs()
    assert {name for name in after if after[name] != before[name]} == {"s0T1w", "s1T1w"}
    left = {path.name for path in (out / "sub-s1T1w").iterdir()}
    assert left == {"sub-s1T1w_screening.json", "sub-s1T1w_report.html"}
    kept = contents(out)
    with pytest.raises(RunError, match=r"other settings \(rate: 0.05 there, 0.2 here\)"):
        screen(make_screener(rate=0.2), items, out)
    with pytest.raises(RunError, match="report: true there, false here"):
        screen(make_screener(), items, out, report=False)
    assert contents(out) == kept


@pytest.mark.parametrize(
    ("module", "step"), [(screener_module, "prepare"), (results, "report_html")]
)
def test_a_fault_of_the_software_is_one_scan_and_tells_no_values(
    module, step, tree, make_screener, tmp_path, monkeypatch
):
    original, calls = getattr(module, step), []

    def fails(*arguments, **options):
        calls.append(0)
        if len(calls) == 2:
            raise ZeroDivisionError("CANARY")
        return original(*arguments, **options)

    monkeypatch.setattr(module, step, fails)
    rows = screen(make_screener(), list_items(tree), tmp_path / "out")
    reasons = {row["code"]: row["reason"] for row in rows if row["code"]}
    assert len(rows) == 5 and reasons.keys() == {"unexpected_error", "unreadable"}
    assert "ZeroDivisionError in test_batch.py" in reasons["unexpected_error"]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(b"CANARY" in path.read_bytes() for path in files)


def test_broken_weights_end_the_run(tree, make_screener, tmp_path):
    screener = make_screener()
    screener.predictor.network.share.data.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="weights are broken"):
        screen(screener, list_items(tree), tmp_path)
    assert worklist(tmp_path).empty


@pytest.mark.parametrize("names", ["pseudonyms", "paths"])
def test_two_patients_whose_files_have_one_name_both_have_a_result(
    names, phantoms, make_screener, tmp_path
):
    out, ids, runs = tmp_path / "out", [], []
    for patient, phantom in zip(("p1", "p2"), phantoms):
        path = tmp_path / patient / "T1.nii.gz"
        path.parent.mkdir()
        path.write_bytes(phantom.read_bytes())
        found = discover(path)
        ids.append(found.scans[0].source_id)
        screen(make_screener(), list_items(found, names=names), out, found=found, report=False)
        runs += re.findall('data-identity="([0-9a-f]{16})"', (out / "index.html").read_text())
    assert len(runs) == 2 and runs[0] == runs[1]  # a reviewer's marks outlive what is added
    table = worklist(out)
    assert len(table) == 2 and table.score.nunique() == 2
    records = [json.loads(path.read_text()) for path in out.glob("sub-*/*_screening.json")]
    assert {record["source_id"] for record in records} == set(ids)
    assert names == "pseudonyms" or set(table.name) == {"T1", f"T1x{ids[1][:12]}"}


def test_results_that_vanish_during_the_run_are_missed(tree, make_screener, tmp_path):
    out, items, screener = tmp_path / "out", list_items(tree), make_screener()
    with pytest.raises(RunError, match="2 of 5 results are gone"):
        screen(Interrupted(screener, lambda: shutil.rmtree(out)), items, out, report=False)
    assert len(worklist(out)) == 3
    assert len(screen(screener, items, out, report=False)) == len(worklist(out)) == 5


@pytest.mark.parametrize("size", ["2", "many"])
def test_the_environment_of_torchrun_without_it_is_refused(
    size, tree, make_screener, tmp_path, monkeypatch, capsys
):
    """The process would wait for others that never come."""
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigError, match="torchrun did not start this process"):
        Batch(make_screener().judge, [], tmp_path)
    assert cli.main(["screen", str(tree), "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_run_goes_on_where_it_was_interrupted(tree, make_screener, tmp_path, monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    interrupted, out = Interrupted(make_screener(), interrupt), tmp_path / "out"
    monkeypatch.setattr(cli, "_screener", lambda options: interrupted)
    command = ["screen", str(tree), "-o", str(out), "--axial-slice"]
    assert cli.main(command) == cli.INTERRUPTED == 130
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == "interrupted: what was finished is kept"
    assert "Traceback" not in said and len(worklist(out)) == 2
    assert cli.main(command) == cli.NOT_ASSESSABLE == 3
    assert len(worklist(out)) == 5 and interrupted.calls == 3 + 3  # two are not done again


def test_a_dry_run_tells_what_a_run_would_do_and_writes_nothing(
    tree, make_screener, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cli, "_screener", lambda options: make_screener())
    (tree / "notes.txt").write_text("no scan")
    (tree / "s9.nii.gz").symlink_to(tree / "absent")  # which each run tries again
    out, key = tmp_path / "out", tmp_path / "key.csv"
    command = ["screen", str(tree), "-o", str(out), "--axial-slice", "--names", "paths"]
    dry = [*command, "--dry-run", "--key", str(key)]
    assert cli.main(dry) == cli.NOT_ASSESSABLE
    told = capsys.readouterr().out.splitlines()
    assert told[:4] == [f"s{number}T1w: to screen" for number in range(4)]
    assert told[4].startswith("s4T1w: would be refused: [unreadable]")
    assert told[5].startswith("s9: would be refused: [not_found]")
    assert told[6].startswith("4 to screen, 0 done already, 2 would be refused, 1 files")
    assert not out.exists() and not key.exists()
    assert cli.main([*command[:1], str(tree / "s0"), *dry[2:]]) == 0

    assert cli.main(command) == cli.NOT_ASSESSABLE
    kept, _ = contents(out), capsys.readouterr()
    assert cli.main(dry) == cli.NOT_ASSESSABLE and contents(out) == kept
    told = capsys.readouterr().out
    assert "s4T1w: done already: not_assessable\ns9: would be refused" in told
    assert "0 to screen, 5 done already, 1 would be refused" in told
    monkeypatch.setattr(cli, "_screener", lambda options: make_screener(rate=0.2))
    assert cli.main(dry) == 1 and "other settings (rate" in capsys.readouterr().err


def test_the_shipped_bundle_by_its_name(tree, tmp_path, capsys):
    out, key = tmp_path / "out", tmp_path / "key.csv"
    options = ["-o", str(out), "--axial-slice", "--no-report"]
    (tree / "s4/notes.txt").write_text("no scan")
    assert cli.main(["screen", str(tree), *options, "--key", str(key)]) == cli.NOT_ASSESSABLE
    said = capsys.readouterr()
    assert "passed over: 1 files or links" in said.out and "[unreadable]" in said.err
    assert len(worklist(out)) == 5 and len(pd.read_csv(key)) == 6
    assert cli.main(["screen", str(tree / "s0"), *options]) == 0
    assert cli.main(["screen", str(tree / "nowhere"), *options]) == 1


@pytest.mark.slow
def test_two_processes_do_what_one_does(tree, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2"]
    command = ["-m", "pathology_screen.cli", "screen", "--axial-slice", tree, "-o"]
    done = {
        name: subprocess.run(
            [sys.executable, *start, *command, tmp_path / name],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        for name, start in (("one", []), ("two", torchrun))
    }
    assert done["one"].returncode == 3
    assert all("1 not assessable (unreadable 1)" in run.stdout for run in done.values())
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
