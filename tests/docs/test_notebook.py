"""The notebook runs from the first cell to the last, and holds no output."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = json.loads((ROOT / "notebooks/first_scan.ipynb").read_text("utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_short_and_stripped():
    assert NOTEBOOK["nbformat"] == 4 and len(NOTEBOOK["cells"]) <= 12
    for cell in CODE:
        assert cell["outputs"] == [] and cell["execution_count"] is None
        ast.parse("".join(cell["source"]))


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    (tmp_path / "notebook.py").write_text("\n".join("".join(cell["source"]) for cell in CODE))
    env = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    command = [sys.executable, "notebook.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = [line for line in done.stdout.splitlines() if " of healthy people" in line]
    assert len(outcomes) == 2 and all("score" in line for line in outcomes)
    made = ("shipped.png", "trained.png", "run/model.pt", "run/calibration.json")
    assert all((tmp_path / name).is_file() for name in made)
