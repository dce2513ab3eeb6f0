"""Runs that meet with an accident: what is written is whole, what is not is told, and the next run
completes it."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from bad_scans import without
from PIL import Image
from scan_builders import dicom_datasets, head_volume, save, series_of

from pathology_screen.archive import list_items, screen_archive
from pathology_screen.bundles import bundle_root
from pathology_screen.cli import main
from pathology_screen.errors import InputError, RunError
from pathology_screen.io import find_scans, read_scan
from pathology_screen.outputs import results
from pathology_screen.predictor import Predictor
from pathology_screen.transforms import ScaleByTissuePercentiled

COMMAND = [sys.executable, "-m", "pathology_screen.cli", "screen", "--axial-slice"]
SHOWN = np.array([[0, -1, 0, 98], [-1, 0, 0, 116], [0, 0, 1, 23], [0, 0, 0, 1]], float)
"""Affine of a slice whose rows run to posterior and columns to the patient's left."""


@pytest.fixture
def make_screener(make_brain_screener):
    """Function that makes a screener which knows where `brain` lies."""
    return make_brain_screener


@pytest.fixture
def tree(brain, tmp_path) -> Path:
    """Three scans of a brain, one of them brighter."""
    root, image = tmp_path / "CANARY_JOHN", nib.load(brain)
    for number in range(3):
        (root / f"s{number}").mkdir(parents=True)
        voxels = np.asarray(image.dataobj) * (1 + number % 2)
        nib.save(
            nib.Nifti1Image(voxels.astype(np.int16), image.affine), root / f"s{number}/T1w.nii.gz"
        )
    return root


@pytest.fixture
def flat_tree(slices, tmp_path) -> Path:
    """Three single slices, which the shipped bundle screens as they are."""
    root = tmp_path / "CANARY_JOHN"
    for number in range(3):
        (root / f"s{number}").mkdir(parents=True)
        pixels = np.asarray(Image.open(slices[number % 2])).astype(np.int16)[..., None]
        pixels[100, 60, 0] += number  # three scans, not copies
        nib.save(nib.Nifti1Image(pixels, SHOWN), root / f"s{number}/T1w.nii.gz")
    return root


@pytest.fixture
def by_command(make_screener, monkeypatch):
    """Function that runs a command with the tiny screener in place of the shipped one; gives its
    exit status."""
    monkeypatch.setattr("pathology_screen.cli._screener", lambda options: make_screener())
    return lambda *arguments: main([str(argument) for argument in arguments])


def check_whole(out: Path) -> list[dict]:
    """Every file that shows is whole, and every record has all its files; gives the records."""
    for path in out.rglob("*"):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(out).parts):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".gz":
            assert np.isfinite(nib.load(path).get_fdata()).all()
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
        else:
            assert path.suffix == ".csv"
    records = [json.loads(path.read_text()) for path in out.glob("sub-*/*_screening.json")]
    assert all(
        (out / f"sub-{record['name']}" / file).is_file()
        for record in records
        for file in record["files"]
    )
    return records


def hidden(out: Path) -> list[Path]:
    return list(out.rglob(".*"))


def partial(out: Path) -> list[Path]:
    """What is hidden, but for the lock."""
    return [path for path in hidden(out) if path.name != ".lock"]


def same(one: Path, other: Path) -> bool:
    """Whether two folders of results hold the same, but for what depends on the clock."""

    def contents(folder):
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*.nii.gz")
        }
        for path in folder.rglob("*_screening.json"):
            found[path.name] = {
                key: value
                for key, value in json.loads(path.read_text()).items()
                if key != "seconds"
            }
        return found | {"worklist": (folder / "worklist.csv").read_bytes()}

    return contents(one) == contents(other)


# --- ended from outside ---


@pytest.mark.slow
def test_ended_while_it_writes(flat_tree, tmp_path):
    out = tmp_path / "out"
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen([*COMMAND, flat_tree, "-o", out], stderr=subprocess.DEVNULL)
        before, deadline = set(partial(out)), time.monotonic() + 120
        while (
            set(partial(out)) == before and time.monotonic() < deadline
        ):  # the files of a scan are being made
            time.sleep(0.001)
        process.send_signal(number)
        status = process.wait(60)
        check_whole(out)
        if number == signal.SIGTERM:
            assert status == 128 + number and set(partial(out)) == before
    for left in hidden(out):  # what SIGKILL left behind, and nothing else
        assert left.relative_to(out).parts[0].startswith((".sub-", ".run-", ".lock"))
    assert (
        subprocess.run([*COMMAND, flat_tree, "-o", out], stderr=subprocess.DEVNULL).returncode == 0
    )
    assert len(check_whole(out)) == 3
    assert (
        subprocess.run(
            [*COMMAND, flat_tree, "-o", tmp_path / "once"], stderr=subprocess.DEVNULL
        ).returncode
        == 0
    )
    assert same(out, tmp_path / "once")


def test_interrupted_at_any_step_of_writing(tree, make_screener, tmp_path, monkeypatch):
    screener, items, out = make_screener(), list_items(tree), tmp_path / "out"
    screen_archive(screener, items, tmp_path / "once")
    for step in (
        "save_volume",
        "save_panel",
        "save_report",
        "save_record",
        "Path.replace",
        "Path.unlink",
    ):
        owner, name = (results, step) if "." not in step else (Path, step.removeprefix("Path."))
        original, calls = getattr(owner, name), []

        def interrupted(*arguments, original=original, calls=calls, **options):
            calls.append(0)
            if len(calls) == 2:
                raise SystemExit(143)
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(SystemExit):
                screen_archive(screener, items, out, report=True)
        check_whole(out)
        assert len(pd.read_csv(out / "worklist.csv")) == len(check_whole(out)) < 3
        shutil.rmtree(out)
    screen_archive(screener, items, out)
    assert same(out, tmp_path / "once")


# --- no room, no permission ---


@contextmanager
def no_file_larger_than(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_left(tree, by_command, tmp_path, capsys):
    """A file that cannot be written to its end, as on a full disk."""
    out = tmp_path / "out"
    with no_file_larger_than(20_000):
        assert by_command("screen", tree, "-o", out) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: [Errno")
    assert check_whole(out) == [] and hidden(out) == []
    assert by_command("screen", tree, "-o", out) == 0
    before = {path: path.read_bytes() for path in out.rglob("*.nii.gz")}
    with no_file_larger_than(20_000):
        assert by_command("screen", tree, "-o", tmp_path / "other", "--plane-mm", "30") == 1
    assert by_command("screen", tree, "-o", out, "--plane-mm", "30") == 1
    assert {path: path.read_bytes() for path in out.rglob("*.nii.gz")} == before and len(
        check_whole(out)
    ) == 3


@contextmanager
def without_privileges():
    """As a user who may not do everything, where the tests run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


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
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 3 and "Traceback" not in errors and "CANARY" not in errors


def test_what_may_not_be_read_is_not_passed_over(public, make_screener):
    """A file, a folder that cannot be listed, and one that cannot be entered: each is refused, none
    is left out."""
    for name in ("shut", "barred", "series"):
        save(dicom_datasets(head_volume(), series_uid=f"1.2.{len(name)}"), public / "CANARY" / name)
    (public / "CANARY/alone.nii.gz").write_bytes(b"")
    (public / "CANARY/alone.nii.gz").chmod(0)
    (public / "CANARY/shut").chmod(0)
    (public / "CANARY/barred").chmod(0o644)
    (public / "CANARY/series/IM0003").chmod(0)
    screener = make_screener()
    with without_privileges():
        items = list_items(public / "CANARY", names="paths")
        found = {
            item.name: screener(item.scan.source, series_uid=item.series_uid) for item in items
        }
        with pytest.raises(InputError, match="unreadable"):
            read_scan(public / "CANARY/barred/IM0000")
    for name in ("shut", "barred"):
        (public / "CANARY" / name).chmod(0o755)
    codes = dict.fromkeys(("alone", "barred", "seriesIM0003", "shut"), "unreadable")
    assert {name: result.code for name, result in found.items()} == codes | {
        "series": "missing_slice"
    }
    assert not any("CANARY" in result.reason for result in found.values())


def test_links_of_a_dataset_that_was_not_fetched(tmp_path, make_screener):
    """As git-annex leaves them: the scans are there by name, and refused."""
    root = tmp_path / "CANARY"
    (root / "sub-01/anat").mkdir(parents=True)
    for name in ("sub-01/anat/sub-01_T1w.nii.gz", "README"):
        (root / name).symlink_to(root / ".git/annex/objects/absent")
    (item,) = list_items(root)
    assert make_screener()(item.scan.source).code == "not_found"
    series = save(dicom_datasets(head_volume()), root / "series")
    (series / "IM0007").unlink()
    (series / "IM0007").symlink_to(root / ".git/annex/objects/absent")
    names = ["series", "series_IM0007", "sub-01_anat_sub-01_T1w"]
    assert [scan["name"] for scan in find_scans(root)] == names
    assert "file 8 of 8" in make_screener()(series).reason


def test_a_scan_that_vanishes_meanwhile(tree, make_screener, tmp_path):
    items = list_items(tree)
    shutil.rmtree(tree / "s1")
    rows = screen_archive(make_screener(), items, tmp_path / "out", root=tree)
    assert [row["code"] for row in rows] == [None, None, "not_found"]


def test_results_are_not_written_among_the_scans(tree, by_command, capsys):
    assert by_command("screen", tree, "-o", tree / "derivatives") == 1
    assert "the folder of the results lies in the input" in capsys.readouterr().err
    assert not (tree / "derivatives").exists()


# --- several at once ---


def test_one_run_at_a_time_writes_a_folder(tree, make_screener, tmp_path):
    screener, items, out = make_screener(), list_items(tree), tmp_path / "out"
    failed = []

    def run():
        try:
            screen_archive(screener, items, out)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        all(isinstance(error, RunError) and "another run" in str(error) for error in failed)
        and len(failed) < 3
    )
    assert len(check_whole(out)) == 3 and hidden(out) == []
    screen_archive(screener, items, tmp_path / "once")
    assert same(out, tmp_path / "once")


@pytest.mark.slow
def test_two_processes_write_one_folder(flat_tree, tmp_path):
    out = tmp_path / "out"
    processes = [
        subprocess.Popen([*COMMAND, flat_tree, "-o", out], stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert sorted(process.wait(300) for process in processes) in (
        [0, 0],
        [0, 1],
    )  # the later is refused, or finds it done
    assert len(check_whole(out)) == 3 and hidden(out) == []


# --- one scan the results of which cannot be written ---


def test_a_result_that_cannot_be_written_is_not_the_end(tree, make_screener, tmp_path, monkeypatch):
    original, calls = results.save_report, []

    def fails(result, *arguments):
        calls.append(0)
        if len(calls) == 2:
            raise ZeroDivisionError("CANARY")
        return original(result, *arguments)

    monkeypatch.setattr(results, "save_report", fails)
    rows = screen_archive(make_screener(), list_items(tree), tmp_path / "out")
    assert sorted(str(row["code"]) for row in rows) == ["None", "None", "unexpected_error"]
    assert (
        "ZeroDivisionError in test_runs.py" in rows[-1]["reason"]
        and "CANARY" not in rows[-1]["reason"]
    )
    assert len(check_whole(tmp_path / "out")) == 3


def test_a_series_that_no_object_can_refer_to_is_not_the_end(brain, make_screener, tmp_path):
    anonymous = series_of(nib.load(brain))
    without("StudyInstanceUID")(anonymous)
    save(anonymous, tmp_path / "in/anonymous")
    save(series_of(nib.load(brain)), tmp_path / "in/whole")
    items = list_items(tmp_path / "in", names="paths")
    rows = {
        row["name"]: row
        for row in screen_archive(make_screener(), items, tmp_path / "out", dicom=True)
    }
    assert rows["anonymous"]["code"] == "unexpected_error" and rows["whole"]["code"] is None
    assert "lacks one of StudyInstanceUID" in rows["anonymous"]["reason"]
    assert list((tmp_path / "out/sub-whole").glob("*_dicom/*.dcm"))
    assert not list((tmp_path / "out/sub-anonymous").glob("*_dicom/*.dcm"))


# --- weights, calibrations and bundles that are not what they should be ---


class Payload:
    """What pickle would run on loading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


MODELS = bundle_root("ra") / "models"


def state() -> dict[str, torch.Tensor]:
    return torch.load(MODELS / "model.pt", weights_only=True)


def missing_key(path):
    torch.save(dict(list(state().items())[1:]), path)


def another_shape(path):
    weights = state()
    torch.save(weights | {next(iter(weights)): torch.zeros(3, 3)}, path)


def other_numbers(path):
    torch.save({name: value + 0.01 for name, value in state().items()}, path)


BAD_WEIGHTS = {
    "absent": (lambda path: None, "there are no weights"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "cut short": (
        lambda path: path.write_bytes((MODELS / "model.pt").read_bytes()[:1_000_000]),
        "damaged",
    ),
    "pickle": (
        lambda path: path.write_bytes(pickle.dumps(Payload(path.with_name("harm")))),
        "damaged or holds more",
    ),
    "pickle in an archive": (
        lambda path: torch.save({"a": Payload(path.with_name("harm"))}, path),
        "holds more",
    ),
    "a list": (lambda path: torch.save([1], path), "does not fit"),
    "a key is missing": (missing_key, "does not fit"),
    "another shape": (another_shape, "does not fit"),
    "other numbers": (other_numbers, "the calibration belongs to something else: weights_sha256"),
}


@pytest.mark.parametrize(("make", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_that_are_not(make, message, tree, tmp_path, capsys):
    weights, out = tmp_path / "model.pt", tmp_path / "out"
    make(weights)
    calibration = MODELS / "calibration.json"
    arguments = ["--weights", weights, "--calibration", calibration]
    assert main(["screen", str(tree), "-o", str(out), *map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert not out.exists() and not (tmp_path / "harm").exists()


def edited(**changes):
    """Function that changes entries of the shipped calibration and leaves its id as it was."""

    def make(path):
        path.write_text(json.dumps(json.loads((MODELS / "calibration.json").read_text()) | changes))

    return make


BAD_CALIBRATIONS = {
    "absent": (lambda path: None, "is missing"),
    "damaged": (lambda path: path.write_bytes(b"\xff{"), "not a calibration that can be read"),
    "a list": (lambda path: path.write_text("[]"), "not a calibration that can be read"),
    "altered": (edited(pixel_threshold=1e9), "altered"),
    "NaN": (edited(pixel_threshold=float("nan")), "not a calibration that can be read"),
    "of another time": (edited(schema_version=99), "schema version 99"),
}


@pytest.mark.parametrize(("make", "message"), BAD_CALIBRATIONS.values(), ids=BAD_CALIBRATIONS)
def test_calibrations_that_are_not(make, message, tree, tmp_path, capsys):
    calibration, out = tmp_path / "calibration.json", tmp_path / "out"
    make(calibration)
    assert main(["screen", str(tree), "-o", str(out), "--calibration", str(calibration)]) == 1
    assert message in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "nonsense"], "the device nonsense cannot be used"),
        pytest.param(
            ["--device", "cuda"],
            "the device cuda cannot be used",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["--rate", "0.001"], "calibrate on 999 or more"),
        (["--rate", "nan"], "must lie between 0 and 1"),
        (["--bundle", "nowhere"], "neither a bundle nor a folder of one"),
    ],
)
def test_settings_that_make_no_sense(options, message, tree, tmp_path, capsys):
    assert main(["screen", str(tree), "-o", str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("sub-*"))


def test_a_damaged_bundle(tree, tmp_path, capsys):
    (tmp_path / "mine/configs").mkdir(parents=True)
    for name, text in (("metadata.json", "{}"), ("inference.json", "{")):
        (tmp_path / "mine/configs" / name).write_text(text)
    (tmp_path / "mine/models").mkdir()
    shutil.copy(MODELS / "model.pt", tmp_path / "mine/models")
    assert (
        main(["screen", str(tree), "-o", str(tmp_path / "out"), "--bundle", str(tmp_path / "mine")])
        == 1
    )
    assert "the configuration of the bundle mine is absent or damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_inspect_and_calibrate_go_on_after_a_fault(
    tree, by_command, brain_predictor, tmp_path, monkeypatch, capsys
):
    """A fault of the software in the face of one scan tells no values, also where nothing is
    written."""
    original, calls = ScaleByTissuePercentiled.__call__, []

    def fails(self, data):
        calls.append(0)
        if len(calls) == 2:
            raise ZeroDivisionError("CANARY")
        return original(self, data)

    monkeypatch.setattr(ScaleByTissuePercentiled, "__call__", fails)
    monkeypatch.setattr(Predictor, "load", lambda *arguments: brain_predictor)
    assert (
        by_command("calibrate", "--normals", tree, "-o", tmp_path / "c.json", "--rate", "0.4") == 0
    )
    captured = capsys.readouterr()
    assert (
        captured.out.count("ZeroDivisionError in test_runs.py") == 1
        and "CANARY" not in captured.out + captured.err
    )
