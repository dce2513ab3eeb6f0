"""The table over all scans of a run."""

import pandas as pd

from pathology_screen.outputs.worklist import COLUMNS, save_worklist, summary, worklist_rows


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


RECORDS = [
    record("b", code="empty"),
    record("c", 0.1),
    record("d", 0.3, outcome="suspicious", areas=(5.0, 20.0), warnings=("one", "two")),
    record("a", code="not_found"),
    record("e", 0.1),
]


def test_highest_score_first_then_what_was_not_assessable():
    assert [row["name"] for row in worklist_rows(RECORDS)] == ["d", "c", "e", "a", "b"]


def test_a_row():
    row = worklist_rows(RECORDS)[0]
    assert tuple(row) != () and set(row) == set(COLUMNS)
    assert (row["regions"], row["largest_area_mm2"], row["warnings"]) == (2, 20.0, "one;two")
    assert (row["report"], row["panel"]) == ("sub-d/sub-d_report.html", "sub-d/sub-d_panel.png")


def test_csv_and_summary(tmp_path):
    rows = worklist_rows(RECORDS)
    save_worklist(rows, tmp_path / "worklist.csv")
    table = pd.read_csv(tmp_path / "worklist.csv")
    assert tuple(table) == COLUMNS and table.name.tolist() == ["d", "c", "e", "a", "b"]
    assert table.regions.fillna(-1).tolist() == [2, 0, 0, -1, -1]
    assert (
        summary(rows) == "5 scans: 1 suspicious, 2 normal, 2 not assessable (not_found 1, empty 1)"
    )
    save_worklist([], tmp_path / "empty.csv")
    assert (tmp_path / "empty.csv").read_text().strip() == ",".join(COLUMNS)
