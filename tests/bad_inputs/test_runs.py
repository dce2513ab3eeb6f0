"""Runs that meet with an accident: what is written is whole, what is not is told, and the next run
completes it."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from bad_scans import without
from batches import contents, screen
from PIL import Image
from scan_builders import dicom_datasets, head_volume, save, series_of

from pathology_screen.bundles import bundle_root
from pathology_screen.cli import main
from pathology_screen.errors import InputError, RunError
from pathology_screen.io import read_scan
from pathology_screen.outputs import results
from pathology_screen.predictor import Predictor
from pathology_screen.screening.batch import list_items
from pathology_screen.transforms import ScaleByTissuePercentiled

MODELS = bundle_root("ra") / "models"
SHOWN = np.array([[0, -1, 0, 98], [-1, 0, 0, 116], [0, 0, 1, 23], [0, 0, 0, 1]], float)
"""Affine of a slice whose rows run to posterior and columns to the patient's left."""


@pytest.fixture
def tree(brain, tmp_path) -> Path:
    """Three scans of a brain, one of them brighter."""
    root, image = tmp_path / "CANARY_JOHN", nib.load(brain)
    for number in range(3):
        (root / f"s{number}").mkdir(parents=True)
        voxels = (np.asarray(image.dataobj) * (1 + number % 2)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, image.affine), root / f"s{number}/T1w.nii.gz")
    return root


def check_whole(out: Path) -> list[dict]:
    """Every file that shows is whole, and every record has all its files; gives the records."""
    opened = {
        ".json": lambda path: json.loads(path.read_text()),
        ".png": lambda path: Image.open(path).load(),
        ".gz": lambda path: nib.load(path).get_fdata(),
        ".csv": pd.read_csv,
        ".html": lambda path: path.read_text().rstrip().index("</html>", -7),
    }
    for path in out.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(out).parts):
            opened[path.suffix](path)
    records = [json.loads(path.read_text()) for path in out.glob("sub-*/*_screening.json")]
    for record in records:
        assert all((out / f"sub-{record['name']}" / file).is_file() for file in record["files"])
    return records


def hidden(out: Path, lock: bool = True) -> set[Path]:
    return {path for path in out.rglob(".*") if lock or path.name != ".lock"}


# --- ended from outside ---


@pytest.mark.slow
def test_ended_while_it_writes(slices, tmp_path):
    """By signals, of the shipped bundle, which takes single slices as they are."""
    tree, out = tmp_path / "in", tmp_path / "out"
    tree.mkdir()
    for number in range(3):
        pixels = np.asarray(Image.open(slices[number % 2])).astype(np.int16)[..., None]
        pixels[100, 60, 0] += number  # three scans, not copies
        nib.save(nib.Nifti1Image(pixels, SHOWN), tree / f"{number}.nii.gz")
    command = [sys.executable, "-m", "pathology_screen.cli", "screen", "--axial-slice", tree, "-o"]
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen([*command, out], stderr=subprocess.DEVNULL)
        before, deadline = hidden(out, lock=False), time.monotonic() + 120
        while hidden(out, lock=False) == before and time.monotonic() < deadline:
            time.sleep(0.001)  # until the files of a scan are being made
        process.send_signal(number)
        status = process.wait(60)
        check_whole(out)
        if number == signal.SIGTERM:
            assert status == 128 + number and hidden(out, lock=False) == before
    for left in sorted(hidden(out)):  # what SIGKILL left behind, and nothing else
        assert left.relative_to(out).parts[0].startswith((".sub-", ".run-", ".lock"))
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    for folder in (out, tmp_path / "once"):
        assert subprocess.run([*command, folder], stderr=subprocess.DEVNULL).returncode == 0
    assert len(check_whole(out)) == 3 and contents(out) == contents(tmp_path / "once")


def test_interrupted_at_any_step_of_writing(tree, make_brain_screener, tmp_path, monkeypatch):
    screener, items = make_brain_screener(), list_items(tree)
    steps = ("save_volume", "save_panel", "report_html", "make_record")
    for owner, name in [*((results, step) for step in steps), (Path, "replace"), (Path, "unlink")]:
        original, calls, out = getattr(owner, name), [], tmp_path / name

        def interrupted(*arguments, original=original, calls=calls, **options):
            calls.append(0)
            if len(calls) == 2:
                raise SystemExit(143)
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(SystemExit):
                screen(screener, items, out)
        assert len(pd.read_csv(out / "scores.csv")) == len(check_whole(out)) < 3
    for folder in (out, tmp_path / "once"):
        screen(screener, items, folder)
    assert contents(out) == contents(tmp_path / "once")


# --- no room, no permission ---


def test_no_room_left(tree, by_command, tmp_path, capsys):
    """A file that cannot be written to its end, as on a full disk."""
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        assert by_command("screen", tree, "-o", out) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: [Errno")
    assert check_whole(out) == [] and not hidden(out)
    assert by_command("screen", tree, "-o", out) == 0 and len(check_whole(out)) == 3


@contextmanager
def without_privileges():
    """As a user who may not do everything, where the tests run as root."""
    user = os.geteuid()
    if not user:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def public():
    """A folder that any user may look into, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_output_that_cannot_be_written(tree, by_command, tmp_path, public, capsys):
    (tmp_path / "file").write_text("in the way")
    assert by_command("screen", tree, "-o", tmp_path / "file") == 1
    assert by_command("screen", tree, "-o", tmp_path / "file" / "out") == 1
    shutil.copytree(tree, public / "in")
    (public / "in").chmod(0o755)
    public.chmod(0o555)
    with without_privileges():
        assert by_command("screen", public / "in", "-o", public / "out") == 1
    public.chmod(0o755)
    assert not (public / "out").exists()
    assert by_command("screen", tree, "-o", tree / "derivatives") == 1
    assert not (tree / "derivatives").exists()
    errors = capsys.readouterr().err
    assert "the folder of the results lies in the input" in errors
    assert errors.count("error: ") == 4 and "Traceback" not in errors and "CANARY" not in errors


def test_what_may_not_be_read_is_not_passed_over(public, make_brain_screener):
    """A file, a folder that cannot be listed, and one that cannot be entered: each is refused."""
    root = public / "CANARY"
    for name in ("shut", "barred", "series"):
        save(dicom_datasets(head_volume(), series_uid=f"1.2.{len(name)}"), root / name)
    (root / "alone.nii.gz").write_bytes(b"")
    modes = {"alone.nii.gz": 0, "shut": 0, "barred": 0o644, "series/IM0003": 0}
    for name, mode in modes.items():
        (root / name).chmod(mode)
    screener, found = make_brain_screener(), {}
    with without_privileges():
        for item in list_items(root, names="paths"):
            found[item.name] = screener(item.scan.source, series_uid=item.series_uid)
        with pytest.raises(InputError, match="unreadable"):
            read_scan(root / "barred/IM0000")
    for name in ("shut", "barred"):
        (root / name).chmod(0o755)
    codes = dict.fromkeys(("alone", "barred", "seriesIM0003", "shut"), "unreadable")
    codes["series"] = "missing_slice"
    assert {name: result.code for name, result in found.items()} == codes
    assert not any("CANARY" in result.reason for result in found.values())


def test_one_run_at_a_time_writes_a_folder(tree, make_brain_screener, tmp_path):
    screener, items, out = make_brain_screener(), list_items(tree), tmp_path / "out"
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(screen, screener, items, out) for _ in range(3)]
    failed = [run.exception() for run in runs if run.exception()]
    assert all(isinstance(error, RunError) and "another run" in str(error) for error in failed)
    assert len(failed) < 3 and len(check_whole(out)) == 3 and not hidden(out)


def test_a_series_that_no_object_can_refer_to_is_not_the_end(brain, make_brain_screener, tmp_path):
    anonymous = series_of(nib.load(brain))
    without("StudyInstanceUID")(anonymous)
    save(anonymous, tmp_path / "in/anonymous")
    save(series_of(nib.load(brain)), tmp_path / "in/whole")
    items, out = list_items(tmp_path / "in", names="paths"), tmp_path / "out"
    rows = {row["name"]: row for row in screen(make_brain_screener(), items, out, dicom=True)}
    assert rows["anonymous"]["code"] == "unexpected_error" and rows["whole"]["code"] is None
    assert "lacks one of StudyInstanceUID" in rows["anonymous"]["reason"]
    objects = {path.parent.parent.name for path in out.glob("sub-*/*_dicom/*.dcm")}
    assert objects == {"sub-whole"}


# --- weights, calibrations and settings that are not what they should be ---


class Payload:
    """What pickle would run on loading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def harmful(folder):
    torch.save({"a": Payload(folder / "harm")}, folder / "model.pt")
    return ["--weights", folder / "model.pt", "--calibration", MODELS / "calibration.json"]


def other_numbers(folder):
    state = torch.load(MODELS / "model.pt", weights_only=True)
    torch.save({name: value + 0.01 for name, value in state.items()}, folder / "model.pt")
    return ["--weights", folder / "model.pt", "--calibration", MODELS / "calibration.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (harmful, "holds more"),
        (other_numbers, "the calibration belongs to something else: weights_sha256"),
        (["--calibration", "nowhere.json"], "is missing"),
        (["--device", "nonsense"], "the device nonsense cannot be used"),
        (["--rate", "nan"], "must lie between 0 and 1"),
        (["--bundle", "nowhere"], "neither a bundle nor a folder of one"),
    ],
)
def test_no_run_starts(options, message, tree, tmp_path, capsys):
    """One line says why, nothing is written, and no code of a file runs."""
    out = tmp_path / "out"
    options = options if isinstance(options, list) else options(tmp_path)
    assert main(["screen", str(tree), "-o", str(out), *map(str, options)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert not out.exists() and not (tmp_path / "harm").exists()


def test_calibrate_goes_on_after_a_fault(
    tree, by_command, brain_predictor, tmp_path, monkeypatch, capsys
):
    """A fault of the software in the face of one scan tells no values."""
    original, calls = ScaleByTissuePercentiled.__call__, []

    def fails(self, data):
        calls.append(0)
        if len(calls) == 2:
            raise ZeroDivisionError("CANARY")
        return original(self, data)

    monkeypatch.setattr(ScaleByTissuePercentiled, "__call__", fails)
    monkeypatch.setattr(Predictor, "load", lambda *arguments: brain_predictor)
    options = ["-o", tmp_path / "c.json", "--rate", "0.4"]
    assert by_command("calibrate", "--normals", tree, *options) == 0
    captured = capsys.readouterr()
    assert captured.out.count("ZeroDivisionError in test_runs.py") == 1
    assert "CANARY" not in captured.out + captured.err
