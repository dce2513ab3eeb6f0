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

VOLUMES = ("desc-anomaly_map", "desc-pseudohealthy_T1w", "desc-anomaly_dseg")


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "worklist.csv").set_index("name")


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / f"sub-{name}/sub-{name}_screening.json").read_text())


def canonical(path: Path) -> np.ndarray:
    """Voxels in RAS order."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


# --- one implementation ---


def results(folder: Path) -> dict[str, object]:
    """Path -> content of everything below a folder, but for the clock and what only a run knows."""
    found: dict[str, object] = {name: (folder / name).read_bytes() for name in below(folder)}
    for name in found:
        if name.endswith("_screening.json"):
            found[name] = json.loads((folder / name).read_text()) | {
                "seconds": None,
                "source_id": None,
            }
        elif name.endswith("_report.html"):
            found[name] = True
    return found


def test_the_bundles_and_the_screener_write_the_same(
    brain, slices, scan, broken, screen, make_brain_screener, tmp_path
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
    found, expected = results(tmp_path / "out"), results(tmp_path / "expected")
    assert (
        found.keys() - {"worklist.csv", "index.html", "dataset_description.json"} == expected.keys()
    )
    assert [name for name in expected if found[name] != expected[name]] == []
    outcomes = [record(tmp_path / "out", item["name"])["outcome"] for item in items]
    assert outcomes == ["suspicious", "suspicious", "not_assessable", "not_assessable"]
    seconds = record(tmp_path / "out", "dicom")["seconds"]
    assert list(seconds) == ["preparation", "screening"] and min(seconds.values()) > 0


def test_files_of_a_scan(scan, screen, tmp_path):
    screen([scan("1")]).finish()
    volumes = {
        f"sub-1/sub-1_{volume}{suffix}" for volume in VOLUMES for suffix in (".nii.gz", ".json")
    }
    pages = {f"sub-1/sub-1_{ending}" for ending in ("screening.json", "panel.png", "report.html")}
    assert below(tmp_path / "out") == volumes | pages | {
        "worklist.csv",
        "index.html",
        "dataset_description.json",
    }
    row, written = table(tmp_path / "out").loc[1], record(tmp_path / "out", "1")
    assert row.outcome == written["outcome"] == "suspicious" and row.score == pytest.approx(
        written["score"]
    )
    assert (tmp_path / "out" / row.report).is_file() and (tmp_path / "out" / row.panel).is_file()


# --- what cannot be judged ---


def test_another_plane_than_the_calibrations_is_mapped_and_not_judged(scan, screen, tmp_path):
    with pytest.raises(SystemExit, match="1 of 2 scans were not assessable"):
        screen([scan("own"), scan("other") | {"z_mm": 30.0}]).finish()
    assert table(tmp_path / "out").code.dropna().to_dict() == {"other": "not_calibrated"}
    written = record(tmp_path / "out", "other")
    assert written["score"] is None and written["slice"]["plane_mm"] == 30
    assert canonical(tmp_path / "out/sub-other/sub-other_desc-anomaly_map.nii.gz").any()


def test_too_few_people_for_the_rate_give_maps_and_no_outcome(scan, screen, tmp_path):
    few = (0.01, 0.02, 0.2, 0.3)
    with pytest.raises(
        SystemExit, match="4 healthy people; accepted: 19 or more for a false positive rate of 0.05"
    ):
        screen([scan()], scores=few).finish()
    written = record(tmp_path / "out", "scan")
    assert (written["outcome"], written["code"]) == ("not_assessable", "not_calibrated")
    assert written["score"] is written["image_threshold"] is None and written["slice"]["score"] > 0
    assert canonical(tmp_path / "out/sub-scan/sub-scan_desc-anomaly_map.nii.gz").any()
    assert screen([scan()], scores=few, rate=0.2).finish() is None
    assert record(tmp_path / "out", "scan")["outcome"] == "normal"


# --- refusals ---


def test_refused_scans_are_accounted_for_with_their_reasons(scan, broken, screen, tmp_path):
    writer = screen([broken, scan("good"), broken | {"name": "broken2"}])
    with pytest.raises(SystemExit) as end:
        writer.finish()
    assert "2 of 3 scans were not assessable" in str(end.value) and "broken2: [not_finite]" in str(
        end.value
    )
    rows = table(tmp_path / "out")
    assert rows.outcome.tolist() == ["suspicious", "not_assessable", "not_assessable"]
    assert rows.code["broken"] == "not_finite" and rows.score.isna()["broken"]
    assert below(tmp_path / "out/sub-broken") == {
        "sub-broken_screening.json",
        "sub-broken_report.html",
    }


def test_a_scan_replaces_its_own_result_and_not_that_of_another_by_the_same_name(
    scan, broken, screen, tmp_path
):
    screen([scan("good"), scan("late")])
    before = results(tmp_path / "out/sub-late")
    with pytest.raises(SystemExit):
        screen([scan("good"), broken | {"name": "late"}]).finish()
    assert results(tmp_path / "out/sub-late") == before
    folders = {path.name for path in (tmp_path / "out").glob("sub-*")}
    assert folders == {"sub-good", "sub-late", f"sub-latex{source_id(broken['image'])[:12]}"}


def test_a_run_without_refusals_ends_well(scan, screen, tmp_path, capsys):
    assert screen([scan()]).finish() is None
    said = capsys.readouterr().out
    assert (
        said
        == f"1 scans: 1 suspicious, 0 normal, 0 not assessable\nlook at: {tmp_path / 'out/index.html'}\n"
    )


def test_a_run_of_refusals_alone_leaves_a_worklist(broken, screen, tmp_path):
    with pytest.raises(SystemExit, match="1 of 1"):
        screen([broken]).finish()
    assert table(tmp_path / "out").outcome.to_dict() == {"broken": "not_assessable"}


# --- interruptions ---


def test_a_network_of_broken_weights_scores_nothing(scan, screen, tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x * float("nan")

    with pytest.raises(RuntimeError) as error:
        screen([scan()], network=Broken())
    assert find_refusal(error.value) is None and not (tmp_path / "out").exists()


def test_the_worklist_holds_what_was_done_before_an_error(scan, screen, tmp_path, monkeypatch):
    def second_fails(result, name, folder, **options):
        if name == "b":
            raise OSError("no space left on device")
        return write_result(result, name, folder, **options)

    monkeypatch.setattr(writer_module, "write_result", second_fails)
    with pytest.raises(OSError, match="no space"):
        screen([scan("a"), scan("b")])
    assert table(tmp_path / "out").outcome.to_dict() == {"a": "suspicious"}
