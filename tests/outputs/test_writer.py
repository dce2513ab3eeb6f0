"""What the bundles' inference leaves behind, which is what `Screener` and `write_result` leave
behind."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scan_builders import save, series_of

from pathology_screen.errors import find_refusal
from pathology_screen.io import source_id
from pathology_screen.outputs import writer as writer_module
from pathology_screen.outputs.results import write_result

OVERVIEW = {"worklist.csv", "index.html", "dataset_description.json"}


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "worklist.csv").set_index("name")


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / f"sub-{name}/sub-{name}_screening.json").read_text())


def has_map(folder: Path, name: str) -> bool:
    image = nib.load(folder / f"sub-{name}/sub-{name}_desc-anomaly_map.nii.gz")
    return np.asarray(image.dataobj).any()


def results(folder: Path) -> dict[str, object]:
    """Path -> content of everything below a folder, but for the clock and what only a run knows."""
    found: dict[str, object] = {name: (folder / name).read_bytes() for name in below(folder)}
    for name in found:
        if name.endswith("_screening.json"):
            found[name] = json.loads(found[name]) | {"seconds": None, "source_id": None}
        elif name.endswith("_report.html"):
            found[name] = True
    return found


def test_the_bundles_and_the_screener_write_the_same(
    brain, slices, scan, broken, screen, make_brain_screener, tmp_path, out
):
    series = save(series_of(nib.load(brain)), tmp_path / "series")
    items = [
        {"image": str(series), "name": "dicom"},
        {"image": str(slices[1]), "name": "slice"},
        scan("other", axcodes="SPL") | {"z_mm": 30.0},
        broken,
    ]
    screen(items)
    screener = make_brain_screener()
    for item in items:
        result = screener(item["image"], plane_mm=item.get("z_mm"))
        write_result(result, item["name"], tmp_path / "expected")
    found, expected = results(out), results(tmp_path / "expected")
    assert found.keys() == expected.keys() | OVERVIEW
    assert [name for name in expected if found[name] != expected[name]] == []
    outcomes = [record(out, item["name"])["outcome"] for item in items]
    assert outcomes == ["suspicious", "suspicious", "not_assessable", "not_assessable"]
    row = table(out).loc["dicom"]
    assert (row.outcome, row.score) == (outcomes[0], pytest.approx(record(out, "dicom")["score"]))
    assert (out / row.report).is_file() and (out / row.panel).is_file()
    seconds = record(out, "dicom")["seconds"]
    assert list(seconds) == ["preparation", "screening"] and min(seconds.values()) > 0


def test_another_plane_than_the_calibrations_is_mapped_and_not_judged(scan, screen, out):
    with pytest.raises(SystemExit, match="1 of 2 scans were not assessable"):
        screen([scan("own"), scan("other") | {"z_mm": 30.0}]).finish()
    assert table(out).code.dropna().to_dict() == {"other": "not_calibrated"}
    written = record(out, "other")
    assert written["score"] is None and written["slice"]["plane_mm"] == 30 and has_map(out, "other")


def test_too_few_people_for_the_rate_give_maps_and_no_outcome(scan, screen, out):
    few = (0.01, 0.02, 0.2, 0.3)
    told = "4 healthy people; accepted: 19 or more for a false positive rate of 0.05"
    with pytest.raises(SystemExit, match=told):
        screen([scan()], scores=few).finish()
    written = record(out, "scan")
    assert (written["outcome"], written["code"]) == ("not_assessable", "not_calibrated")
    assert written["score"] is written["image_threshold"] is None and written["slice"]["score"] > 0
    assert has_map(out, "scan")
    assert screen([scan()], scores=few, rate=0.2).finish() is None
    assert record(out, "scan")["outcome"] == "normal"


def test_refused_scans_are_accounted_for_with_their_reasons(scan, broken, screen, out):
    writer = screen([broken, scan("good"), broken | {"name": "broken2"}])
    with pytest.raises(SystemExit, match="2 of 3 scans were not assessable") as end:
        writer.finish()
    assert "broken2: [not_finite]" in str(end.value)
    rows = table(out)
    assert rows.outcome.tolist() == ["suspicious", "not_assessable", "not_assessable"]
    assert rows.code["broken"] == "not_finite" and rows.score.isna()["broken"]
    files = {f"sub-broken_{ending}" for ending in ("screening.json", "report.html")}
    assert below(out / "sub-broken") == files


def test_a_scan_replaces_its_own_result_and_not_that_of_another_by_the_same_name(
    scan, broken, screen, out
):
    screen([scan("good"), scan("late")])
    before = results(out / "sub-late")
    with pytest.raises(SystemExit):
        screen([scan("good"), broken | {"name": "late"}]).finish()
    assert results(out / "sub-late") == before
    folders = {path.name for path in out.glob("sub-*")}
    assert folders == {"sub-good", "sub-late", f"sub-latex{source_id(broken['image'])[:12]}"}


def test_a_run_without_refusals_ends_well(scan, screen, out, capsys):
    assert screen([scan()]).finish() is None
    counts, page = capsys.readouterr().out.splitlines()
    assert counts == "1 scans: 1 suspicious, 0 normal, 0 not assessable"
    assert page == f"look at: {out / 'index.html'}"


def test_a_run_of_refusals_alone_leaves_a_worklist(broken, screen, out):
    with pytest.raises(SystemExit, match="1 of 1"):
        screen([broken]).finish()
    assert table(out).outcome.to_dict() == {"broken": "not_assessable"}


def test_a_network_of_broken_weights_scores_nothing(scan, screen, out):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x * float("nan")

    with pytest.raises(RuntimeError) as error:
        screen([scan()], network=Broken())
    assert find_refusal(error.value) is None and not out.exists()


def test_the_worklist_holds_what_was_done_before_an_error(scan, screen, out, monkeypatch):
    def second_fails(result, name, folder, **options):
        if name == "b":
            raise OSError("no space left on device")
        return write_result(result, name, folder, **options)

    monkeypatch.setattr(writer_module, "write_result", second_fails)
    with pytest.raises(OSError, match="no space"):
        screen([scan("a"), scan("b")])
    assert table(out).outcome.to_dict() == {"a": "suspicious"}
