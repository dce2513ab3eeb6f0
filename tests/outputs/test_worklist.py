"""The table over all scans of a run, and what lies beside it."""

import json

import pandas as pd

from pathology_screen.outputs.worklist import COLUMNS, save_overview, summary, worklist_rows


def record(name, score=None, code=None, outcome=None, areas=(), warnings=()):
    return {
        "name": name,
        "outcome": outcome or ("not_assessable" if code else "normal"),
        "score": score,
        "percentile": None if score is None else 50.0,
        "p_value": None if score is None else 0.5,
        "code": code,
        "reason": f"[{code}]" if code else "",
        "slice": None if score is None else {"score": score},
        "regions": [{"area_mm2": area} for area in areas],
        "findings": [{"code": warning, "refused": False} for warning in warnings],
        "files": [] if score is None else [f"sub-{name}_panel.png", f"sub-{name}_report.html"],
    }


ROWS = worklist_rows(
    [
        record("b", code="empty"),
        record("c", 0.1),
        record("d", 0.3, outcome="suspicious", areas=(5.0, 20.0), warnings=("one", "two")),
        record("a", code="not_found"),
        record("e", 0.1),
    ]
)


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
        "regions": 2,
        "largest_area_mm2": 20.0,
        "code": None,
        "reason": None,
        "warnings": "one;two",
        "report": "sub-d/sub-d_report.html",
        "panel": "sub-d/sub-d_panel.png",
    }


def test_files_and_summary(tmp_path):
    save_overview(ROWS, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "worklist.csv")
    assert tuple(table) == COLUMNS and table.name.tolist() == ["d", "c", "e", "a", "b"]
    assert table.regions.fillna(-1).tolist() == [2, 0, 0, -1, -1]
    told = "5 scans: 1 suspicious, 2 normal, 2 not assessable (not_found 1, empty 1)"
    assert summary(ROWS) == told
    save_overview([], tmp_path / "empty")
    for name in ("run", "empty"):
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            *("worklist.csv", "index.html", "dataset_description.json")
        }
    assert (tmp_path / "empty/worklist.csv").read_text().strip() == ",".join(COLUMNS)
    description = json.loads((tmp_path / "run" / "dataset_description.json").read_text())
    assert description["BIDSVersion"]
    assert description["GeneratedBy"][0]["Name"] == "pathology_screen"
