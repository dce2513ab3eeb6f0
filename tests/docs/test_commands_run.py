"""The blocks of commands that stand without a title run as they are printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pathology_screen.cohorts import make_phantom_cohort

ROOT = Path(__file__).resolve().parents[2]
SHIMS = {"python": "", "pathology-screen": " -m pathology_screen.cli"}


def blocks() -> list[str]:
    text = (ROOT / "docs/tutorial.md").read_text("utf-8")
    return re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where the bundles lie as in the root of a checkout, with the embedded cohort in "phantom"."""
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    (tmp_path / "phantom").symlink_to(make_phantom_cohort().parent.parent)
    (tmp_path / "bin").mkdir()
    for name, arguments in SHIMS.items():
        shim = tmp_path / "bin" / name
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        shim.chmod(0o700)
    return tmp_path


@pytest.mark.slow
def test_the_tutorial_runs(folder):
    env = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    assert len(blocks()) == 4
    for block in blocks():
        done = subprocess.run(
            ["bash", "-ec", block], cwd=folder, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}{done.stdout[-2000:]}{done.stderr[-2000:]}"
    pages = ("trial/results/index.html", "compared/synthetic.html")
    assert all((folder / page).is_file() for page in pages)
    assert (folder / "run/calibration.json").is_file()
