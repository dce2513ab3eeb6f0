"""The tables over all scans and regions of a run, and what lies beside them."""

import json

import pandas as pd

from pathology_screen.outputs.worklist import (
    COLUMNS,
    REGION_COLUMNS,
    save_overview,
    summary,
    worklist_rows,
)

FIT = {"dice": 0.95, "correlation": 0.75, "turn": 0.0, "shown": 1.0}
SOURCE = {"manufacturer": "Acme", "manufacturer_model": "One", "field_strength": 1.5}


def record(name, score=None, code=None, outcome=None, areas=(), warnings=()):
    return {
        "name": name,
        "outcome": outcome or ("not_assessable" if code else "normal"),
        "score": score,
        "percentile": None if score is None else 50.0,
        "p_value": None if score is None else 0.5,
        "code": code,
        "reason": f"[{code}]" if code else "",
        "image_threshold": None if score is None else 0.2,
        "pixel_threshold": None if score is None else 0.05,
        "healthy_range": None if score is None else [0.06, 0.18],
        "slice": None if score is None else {"score": score, "fit": FIT},
        "source": {} if name == "e" else SOURCE,
        "regions": [
            {
                **{"label": i, "area_mm2": area, "peak": 0.4, "mean": 0.3, "side": "left"},
                **{"tissue": "grey", "centroid_mni_mm": [-30.0, 4.0, 23.0]},
            }
            for i, area in enumerate(areas, start=1)
        ],
        "findings": [{"code": warning, "refused": False} for warning in warnings],
        "files": [] if score is None else [f"sub-{name}_panel.png", f"sub-{name}_report.html"],
    }


RECORDS = [
    record("b", code="empty"),
    record("c", 0.1),
    record("d", 0.3, outcome="suspicious", areas=(5.0, 20.0), warnings=("one", "two")),
    record("a", code="not_found"),
    record("e", 0.1),
]
ROWS = worklist_rows(RECORDS)


def test_highest_score_first_then_what_was_not_assessable():
    assert [row["name"] for row in ROWS] == ["d", "c", "e", "a", "b"]


def test_a_row():
    assert set(ROWS[0]) == set(COLUMNS)
    assert ROWS[0] == {
        "name": "d",
        "outcome": "suspicious",
        "score": 0.3,
        "percentile": 50.0,
        "p_value": 0.5,
        "threshold": 0.2,
        "healthy_low": 0.06,
        "healthy_high": 0.18,
        "regions": 2,
        "largest_area_mm2": 20.0,
        "scanner": "Acme One 1.5 T",
        "dice": 0.95,
        "correlation": 0.75,
        "code": None,
        "reason": None,
        "warnings": "one;two",
        "report": "sub-d/sub-d_report.html",
        "panel": "sub-d/sub-d_panel.png",
    }


def test_files_and_summary(tmp_path):
    save_overview(RECORDS, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert tuple(table) == COLUMNS and table.name.tolist() == ["d", "c", "e", "a", "b"]
    assert table.regions.fillna(-1).tolist() == [2, 0, 0, -1, -1]
    regions = pd.read_csv(tmp_path / "run" / "regions.csv")
    assert tuple(regions) == REGION_COLUMNS and regions.name.tolist() == ["d", "d"]
    places = ["d", 2, "left", "grey", 20.0, 0.4, 0.3, -30.0, 4.0, 23.0, 0.05]
    assert regions.iloc[1].tolist() == places
    told = "5 scans: 1 suspicious, 2 normal, 2 not assessable (not_found 1, empty 1)"
    assert summary(ROWS) == told
    save_overview([], tmp_path / "empty")
    for name in ("run", "empty"):
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            *("scores.csv", "regions.csv", "index.html", "dataset_description.json")
        }
    assert (tmp_path / "empty/scores.csv").read_text().strip() == ",".join(COLUMNS)
    assert (tmp_path / "empty/regions.csv").read_text().strip() == ",".join(REGION_COLUMNS)
    description = json.loads((tmp_path / "run" / "dataset_description.json").read_text())
    assert description["BIDSVersion"]
    assert description["GeneratedBy"][0]["Name"] == "pathology_screen"
